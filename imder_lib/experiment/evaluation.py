"""evaluate: a tidy table of metrics by protocol, case, method and seed."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from numbers import Real
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from imder_lib.data.missing import availability, nominal_rate, realised_rate, restrict
from imder_lib.data.posterior import bayes_prediction
from imder_lib.data.schema import MultimodalData, Split
from imder_lib.diffusion.samplers import Sampler
from imder_lib.errors import UserError
from imder_lib.experiment.cases import Case, cases
from imder_lib.experiment.metrics import class_metrics, coverage, metrics
from imder_lib.experiment.prediction import Predictor, predict
from imder_lib.model.imder import IMDer, check_outputs, check_widths
from imder_lib.model.recovery import Latents, MeanFill, Recoverer, ZeroFill, encode_split
from imder_lib.nets.precision import computing
from imder_lib.settings import whole_number

BASELINES = ("zero", "mean", "constant", "bayes")
RELEASED_BATCH = 32  # that protocol "released" counts in: the release's on MOSI


@torch.no_grad()
def evaluate(
    models: IMDer | Mapping[str, IMDer],
    split: Split,
    protocols: str | Iterable[str | Case] = ("fixed", "random"),
    seeds: int | Iterable[int] = (1,),
    *,
    draws: int = 1,
    sampler: Sampler | None = None,
    baselines: bool = True,
) -> pd.DataFrame:
    """Metrics of models and baselines on one split.

    The noise of a sample depends on (seed, id) alone, so each sample is recovered once per pattern. What a
    sample lacks in the data is missing under every mask; if a mask would leave nothing, the sample keeps all it has.

    Args:
        models: trained model, "imder" in the table, or models by name, with the same modalities.
        split: split of a data set, whose training split and process give the baselines.
        protocols: "fixed", "random", "released", "instance", "imbalanced", or pairs (protocol, pattern or rate); the
            rate of "imbalanced" is a mapping modality -> rate. See :func:`imder_lib.availability`. "released" counts in
            batches of 32, or of B by ("released", rate, B); a split of too few batches gives a warning.
        seeds: of masks and noise.
        draws: K >= 1 recoveries of each sample; the prediction is their mean.
        sampler: None: the configured one.
        baselines: also the rows "zero", "mean", "constant", "bayes".

    Returns:
        One row for each protocol, case, method and seed. Columns: protocol, case, rate (nominal), realised,
        method, seed, n, draws, the metrics, and cover50, cover80, cover95: the share of labels in the central intervals
        of a normal with the draws' mean; its variance is the draws' plus the validation error on complete data.
        "zero" and "mean" fill missing latents and use the first model's fusion; "constant" predicts the training
        median; "bayes" is the limit, on synthetic data only. Where labels are classes, the prediction is the mean of
        the draws' probabilities, "constant" the classes' shares in training, and there are no intervals.

    Raises:
        UserError: bad settings, or data of other modalities or widths than the models'; nothing has run.
    """
    models = {"imder": models} if isinstance(models, IMDer) else dict(models)
    if not models or models.keys() & set(BASELINES):
        raise UserError(f"models: expected one or more, with names other than {BASELINES}, got {list(models)}")
    draws = whole_number("draws", draws)
    seeds = [whole_number("seeds", s, 0) for s in ([seeds] if isinstance(seeds, Real) else seeds)]
    for model in models.values():
        check_widths(model.config.widths, {m: x.shape[-1] for m, x in split.features.items()})
        if split.data is not None:
            check_outputs(model.config, split.data.classes)
    modalities, *others = (model.modalities for model in models.values())
    if bad := [other for other in others if other != modalities]:
        raise UserError(f"models: expected the modalities of all in one order, got {modalities} and {bad[0]}")
    masks = _masks(split, modalities, protocols, seeds)
    training = {model: model.training for model in models.values()}
    try:
        for model in models.values():
            model.eval()
        return _table(models, split, masks, draws, sampler, baselines)
    finally:
        for model, was_training in training.items():
            model.train(was_training)


def _masks(
    split: Split, modalities: Sequence[str], protocols: str | Iterable[str | Case], seeds: Sequence[int]
) -> dict[tuple[int, str, str | float], Tensor]:
    """Masks (N, M) by seed, protocol and case, without what samples lack in the data."""
    masks, n = {}, len(split)
    for seed, (protocol, case, *batch) in product(seeds, cases(protocols, modalities)):
        size = whole_number("the batch size of protocol 'released'", *(batch or [RELEASED_BATCH]))
        mask = availability(protocol, n, modalities, case, seed, split.ids, batch_size=size)
        if protocol == "released" and case and mask.all():
            warnings.warn(
                f"protocol 'released' masks nothing here: it needs six batches or more, {n} samples are "
                f"{-(-n // size)} of {size}; use protocol 'random', or smaller batches: ('released', rate, batch size)",
                stacklevel=4,
            )
        mask = restrict(mask, split.given(modalities))
        if not torch.equal(masks.setdefault((seed, protocol, case), mask), mask):
            raise UserError(
                f"protocol 'released' has two batch sizes at rate {case}: evaluate each in a call of its own"
            )
    return masks


class _Method(NamedTuple):
    """A row of the table: a model's fusion with its own recoverer or another one."""

    model: IMDer
    recoverer: Recoverer
    latents: Latents
    residual: float  # see _residual


def _methods(models: Mapping[str, IMDer], split: Split, baselines: bool) -> dict[str, _Method]:
    """The models, and the baselines that recover latents."""
    data = split.data
    methods = {
        name: _Method(model, model.recoverer, encode_split(model, split), _residual(model, data))
        for name, model in models.items()
    }
    first = next(iter(methods.values()))
    if baselines:
        methods["zero"] = first._replace(recoverer=ZeroFill(first.model.config))
    if baselines and data is not None:
        mean = MeanFill(first.model.config).to(next(first.model.parameters()).device)
        mean.prepare(first.latents if split is data.train else encode_split(first.model, data.train))
        methods["mean"] = first._replace(recoverer=mean)
    return methods


def _table(
    models: Mapping[str, IMDer],
    split: Split,
    masks: Mapping[tuple[int, str, str | float], Tensor],
    draws: int,
    sampler: Sampler | None,
    baselines: bool,
) -> pd.DataFrame:
    """The rows of :func:`evaluate` for masks by seed, protocol and case, ordered by seed."""
    data, n, modalities = split.data, len(split), next(iter(models.values())).modalities
    methods = _methods(models, split, baselines)
    ordered = [] if data is None or data.process is None else [modalities.index(m) for m in data.process.loadings]
    rows: list[dict[str, object]] = []
    predictors: dict[str, Predictor] = {}
    for seed in dict.fromkeys(seed for seed, *_ in masks):
        for name, method in methods.items():
            if method.recoverer.stochastic or name not in predictors:  # without noise, one prediction serves every seed

                def run(rows: np.ndarray, mask: np.ndarray, method: _Method = method, seed: int = seed) -> np.ndarray:
                    part, ids = {m: x[rows] for m, x in method.latents.items()}, [split.ids[i] for i in rows]
                    return predict(method.model, method.recoverer, part, ids, mask, seed, draws, sampler)

                predictors[name] = Predictor(run, n)
        for protocol, case in (key[1:] for key in masks if key[0] == seed):
            available = masks[seed, protocol, case]
            realised = realised_rate(available)
            nominal = realised if protocol == "fixed" else nominal_rate(protocol, case, modalities)
            head = {"protocol": protocol, "case": str(case), "rate": nominal, "realised": realised}
            mask = available.numpy()
            found = {name: predictor(mask) for name, predictor in predictors.items()}
            if baselines and data is not None:
                found["constant"] = _constant(data, n)
                if data.process is not None:
                    best = bayes_prediction(data.process, split.features, mask[:, ordered])
                    found["bayes"] = np.stack([best, np.zeros(n)])
            for name, (mean, spread) in found.items():
                row = head | {"method": name, "seed": seed, "n": n, "draws": draws if name in models else 1}
                row |= metrics(mean, split.labels) if mean.ndim == 1 else class_metrics(mean, split.labels)
                if name in methods and mean.ndim == 1:
                    row |= coverage(mean, np.hypot(spread, methods[name].residual), split.labels)
                rows.append(row)
    return pd.DataFrame(rows)


def _constant(data: MultimodalData, n: int) -> np.ndarray:
    """The training median, or the classes' shares, for n samples, and a spread of 0: (2, n) or (2, n, C)."""
    y = data.train.labels
    value = np.bincount(y, minlength=data.classes) / len(y) if data.classes else np.median(y)
    mean = np.broadcast_to(value, (n, *np.shape(value)))
    return np.stack([mean, np.zeros_like(mean)])


def _residual(model: IMDer, data: MultimodalData | None) -> float:
    """Root mean squared error of the model on complete validation samples; NaN without any, and for classes."""
    complete = None if data is None else data.valid.given(model.modalities).all(dim=1).numpy()
    if complete is None or not complete.any() or model.config.fusion.outputs > 1:
        return float("nan")
    latents = encode_split(model, data.valid)
    with computing(model.config.precision, latents[model.modalities[0]].device):
        prediction = model.fusion(latents)[0][:, 0].cpu().numpy()
    return float(np.sqrt(np.mean((prediction - data.valid.labels)[complete] ** 2)))
