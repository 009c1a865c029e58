"""The posterior check: sample quality of recovered latents and of exact posterior draws, by pattern."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from imder_course.sample_quality import sample_quality
from imder_lib.data.missing import available_columns, patterns
from imder_lib.data.posterior import exact_draws, exact_posterior
from imder_lib.data.schema import MultimodalData, Split
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.diffusion.samplers import Sampler
from imder_lib.errors import UserError
from imder_lib.experiment.parallel import over_batches
from imder_lib.model.imder import IMDer
from imder_lib.model.recovery import Latents, Standardizer, encode_split, most_rows


def latent_posteriors(
    model: IMDer, split: Split, given: Iterable[str], draws: int, seed: int = 0
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Exact posterior of the latents of all missing modalities given the others, for synthetic data.

    Returns:
        mean: modality -> (N, D, T')
        draws: modality -> (K, N, D, T'); the modalities of a draw share style and affect
    """
    process, given, rng = split.data.process, list(given), np.random.default_rng(seed)
    missing = [m for m in model.modalities if m not in given]

    def encoded(features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        latents = encode_split(model, replace(split, features={**split.features, **features}))
        return {m: latents[m].cpu().numpy() for m in missing}

    # Encoders are linear, so the latents of the mean are the mean of the latents.
    mean = encoded({m: exact_posterior(process, split.features, m, given).mean for m in missing})
    drawn = []
    for _ in range(draws):  # one by one, since features need much more memory than latents
        features, _ = exact_draws(process, split.features, given, 1, rng)
        drawn.append(encoded({m: x[0] for m, x in features.items()}))
    return mean, {m: np.stack([x[m] for x in drawn]) for m in missing}


@torch.no_grad()
def posterior_check(
    model: IMDer,
    data: MultimodalData,
    chosen: Iterable[Iterable[str]] | None = None,
    *,
    draws: int = 16,
    seed: int = 1,
    limit: int = 0,
    samplers: Mapping[str, Sampler] | None = None,
) -> pd.DataFrame:
    """:func:`sample_quality` of recovered latents on the complete samples of the test split, by incomplete pattern.

    The missing modalities of a pattern are joined. Latents are standardised per channel with training statistics. On
    synthetic data the conditional mean is exact, and rows "exact" are for draws of the exact posterior.

    Args:
        model: trained; set to eval mode.
        data: the data it was trained on.
        chosen: patterns of available modalities; None: all incomplete ones.
        draws: K.
        seed: of the noise.
        limit: maximum number of test samples; 0: all.
        samplers: name -> sampler; None: the configured one, named "recovered". All use the same seed. Rows
            "NAME - FIRST" are the paired differences to the first sampler.

    Returns:
        columns pattern, method ("recovered" or a sampler's name, "exact"), metric, value, low, high

    Raises:
        UserError: a sampler has the name "exact".
    """
    samplers = samplers or {"recovered": model.config.sampler}
    if "exact" in samplers:
        raise UserError('the sampler name "exact" is reserved for draws of the exact posterior: use another name')
    model.eval()
    split = data.test.complete()
    split = split.first(limit) if limit else split
    scale = Standardizer(model.modalities, model.config.dim)
    scaled = lambda latents: scale({m: x.cpu() for m, x in latents.items()}).numpy()  # noqa: E731  (N, M, D, T')
    scale.fit({m: x.cpu() for m, x in encode_split(model, data.train).items()})
    latents = encode_split(model, split)
    true = scaled(latents)
    std, mean = scale.std[..., 0].numpy()[:, :, None], scale.mean[..., 0].numpy()[:, :, None]
    tables = []
    for pattern in chosen or patterns(model.modalities, complete=False):
        available = available_columns([pattern], model.modalities)
        missing = [(i, m) for i, m in enumerate(model.modalities) if not available[0, i]]
        rows = available.expand(len(split), -1).to(latents[model.modalities[0]].device)
        found: dict[str, np.ndarray] = {}
        join = lambda x, missing=missing: np.concatenate([x[..., i, :, :] for i, _ in missing], axis=-2)  # noqa: E731
        for name, sampler in samplers.items():
            drawn = _recovered(model, latents, rows, split.ids, draws, seed, sampler)
            found[name] = join(np.stack([scaled({m: x[k] for m, x in drawn.items()}) for k in range(draws)]))
        exact = None
        if data.process is not None:
            exact, found["exact"] = (
                np.concatenate([(x[m] - mean[i]) / std[i] for i, m in missing], axis=-2)
                for x in latent_posteriors(model, split, pattern, draws, seed)
            )
        first, *others = samplers
        compared = [(name, x, None) for name, x in found.items()]
        compared += [(f"{name} - {first}", found[name], found[first]) for name in others]
        condition = true[:, available[0].numpy()].reshape(len(split), -1)
        for method, x, against in compared:
            table = sample_quality(x, join(true), condition, exact, against=against)
            tables.append(table.assign(pattern="+".join(pattern), method=method))
    return pd.concat(tables, ignore_index=True)[["pattern", "method", "metric", "value", "low", "high"]]


def _recovered(
    model: IMDer, latents: Latents, available: Tensor, ids: Sequence[str], draws: int, seed: int, sampler: Sampler
) -> Latents:
    """Recovered latents on the CPU, modality -> (K, N, D, T'), computed in batches."""

    def run(rows: slice) -> Latents:
        part, noise = {m: x[rows] for m, x in latents.items()}, SampleNoise(seed, ids[rows], "posterior check")
        return {m: x.cpu() for m, x in model.recover(part, available[rows], noise, draws, sampler).items()}

    parts = over_batches(len(ids), most_rows(available.device), run, available.device)
    return {m: torch.cat([part[m] for part in parts], dim=1) for m in latents}
