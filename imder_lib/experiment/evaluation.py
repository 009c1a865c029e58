"""evaluate: one tidy table of every metric, protocol, condition, method and seed."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from imder_lib.data.missing import PROTOCOLS, RATES, availability, patterns, realised_rate
from imder_lib.data.posterior import bayes_prediction
from imder_lib.data.schema import Split
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.errors import UserError
from imder_lib.experiment.metrics import metrics
from imder_lib.model.imder import IMDer
from imder_lib.model.recovery import (
    Recoverer,
    diffusion_recoverer,
    encode_split,
    mean_recoverer,
    zero_recoverer,
)

Condition = tuple[str, str | float]  # (protocol, pattern or nominal rate)


def conditions(protocols: Iterable[str | Condition], modalities: Sequence[str]) -> list[Condition]:
    """Protocols as a flat list: "fixed" is every pattern, "random" and "released" their eight rates."""
    out: list[Condition] = []
    for entry in protocols:
        if not isinstance(entry, str):
            out.append((entry[0], entry[1] if isinstance(entry[1], str | float | int) else "+".join(entry[1])))
        elif entry == "fixed":
            out += [("fixed", "+".join(p)) for p in patterns(modalities)]
        elif entry in PROTOCOLS:
            out += [(entry, r) for r in RATES]
        else:
            raise UserError(f"unknown protocol {entry!r}: expected one of {PROTOCOLS}")
    return out


def predict_patterns(
    model: IMDer,
    latents: dict[str, Tensor],
    ids: Sequence[str],
    needed: Tensor,
    recoverer: Recoverer,
    seed: int,
    batch_size: int = 256,
) -> np.ndarray:
    """Predictions of every sample under its pattern, in rows of ``needed``.

    Args:
        latents: modality -> (N, D, T) of the true features; what is missing is replaced, never seen.
        needed: bool (N, M).

    Returns:
        (N,)
    """
    out = []
    for start in range(0, len(ids), batch_size):
        end = start + batch_size
        part = {m: x[start:end] for m, x in latents.items()}
        noise = SampleNoise(seed, ids[start:end], "evaluate")
        filled = recoverer(part, needed[start:end].to(next(iter(part.values())).device), noise)
        out.append(model.fusion(filled)[0][:, 0].cpu())
    return torch.cat(out).numpy()


@torch.no_grad()
def evaluate(
    model: IMDer,
    split: Split,
    protocols: Iterable[str | Condition] = ("fixed", "random"),
    seeds: Iterable[int] = (1,),
    *,
    steps: int | None = None,
    batch_size: int = 256,
    mask_batch: int = 32,
) -> pd.DataFrame:
    """Metrics of a model and its baselines on one split.

    Masks and noise of a sample depend on (seed, id) alone, so a sample is recovered once for each pattern it is seen
    under and every protocol reads from there.

    Args:
        model: trained; evaluated in eval mode.
        split: of a data set (its training split gives the constant and the mean, its process the Bayes limit).
        protocols: "fixed", "random", "released", or pairs (protocol, pattern or rate).
        seeds: of masks and noise.
        steps: network calls of the sampler; the model's own if None.
        batch_size: of recovery and fusion.
        mask_batch: batch size that the protocol "released" counts in.

    Returns:
        One row for each protocol, condition, method and seed. Columns: protocol, condition, rate (nominal), realised,
        method ("imder", "zero", "mean", "constant", "bayes"), seed, n, and the metrics. "zero" and "mean" fill missing
        latents and use the same fusion; "constant" predicts the training median; "bayes" is the limit, on synthetic
        data only.
    """
    was_training = model.training
    model.eval()
    todo = conditions(protocols, model.modalities)
    latents = encode_split(model, split, batch_size)
    methods: dict[str, Recoverer] = {"imder": diffusion_recoverer(model, steps), "zero": zero_recoverer()}
    data = split.data
    if data is not None:
        train = latents if split is data.train else encode_split(model, data.train, batch_size)
        methods["mean"] = mean_recoverer({m: x.mean(0) for m, x in train.items()})
    rows, n, weights = [], len(split), 2 ** np.arange(len(model.modalities))
    fixed: dict[str, np.ndarray] = {}  # predictions of methods without noise serve every seed
    for seed in seeds:
        masks = {
            (p, c): availability(p, n, model.modalities, c, seed=seed, ids=split.ids, batch_size=mask_batch)
            for p, c in todo
        }
        cache: dict[tuple[str, int], np.ndarray] = {}
        for (protocol, condition), available in masks.items():
            code = available.numpy() @ weights
            predictions: dict[str, np.ndarray] = {}
            for method, recoverer in methods.items():
                out = np.empty(n, dtype=np.float32)
                store = cache if method == "imder" else fixed
                for pattern in np.unique(code):
                    rows_here = np.flatnonzero(code == pattern)
                    known = store.setdefault((method, int(pattern)), np.full(n, np.nan, dtype=np.float32))
                    todo_rows = rows_here[np.isnan(known[rows_here])]
                    if len(todo_rows):
                        part = {m: x[todo_rows] for m, x in latents.items()}
                        ids = [split.ids[i] for i in todo_rows]
                        known[todo_rows] = predict_patterns(
                            model, part, ids, available[todo_rows], recoverer, seed, batch_size
                        )
                    out[rows_here] = known[rows_here]
                predictions[method] = out
            if data is not None:
                predictions["constant"] = np.full(n, np.median(data.train.labels))
                if data.process is not None:
                    predictions["bayes"] = bayes_prediction(data.process, split.features, available.numpy())
            realised = realised_rate(available)
            nominal = realised if protocol == "fixed" else float(condition)
            head = {"protocol": protocol, "condition": str(condition), "rate": nominal, "realised": realised}
            rows += [
                head | {"method": k, "seed": seed, "n": n} | metrics(v, split.labels) for k, v in predictions.items()
            ]
    model.train(was_training)
    return pd.DataFrame(rows)
