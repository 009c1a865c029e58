"""The posterior check: sample quality of recovered latents and of exact posterior draws, by pattern."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
import torch

from imder_lib.data.missing import available_columns, patterns
from imder_lib.data.posterior import convolution_matrix, exact_draws, exact_mean
from imder_lib.data.schema import MultimodalData, Split
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.diffusion.samplers import Sampler
from imder_lib.errors import UserError
from imder_lib.experiment.sample_quality import sample_quality
from imder_lib.model.imder import IMDer
from imder_lib.model.recovery import Standardizer, encode_split


def latent_posteriors(
    model: IMDer, split: Split, given: Iterable[str], draws: int, seed: int = 0
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Exact posterior of the latents of all missing modalities given the others, for synthetic data.

    Returns:
        mean: modality -> (N, D, T')
        draws: modality -> (K, N, D, T'); the modalities of a draw share style and affect
    """
    process, given = split.data.process, list(given)
    weights = {m: _encoder_weight(model, m) for m in model.modalities if m not in given}
    images = {m: convolution_matrix(w.astype(np.float64), process.steps) for m, w in weights.items()}
    mean = {m: exact_mean(process, split.features, m, given, image) for m, image in images.items()}
    sampled, _ = exact_draws(process, split.features, given, draws, np.random.default_rng(seed), images)
    shape = {m: (len(split), len(w), -1) for m, w in weights.items()}
    return {m: x.reshape(shape[m]) for m, x in mean.items()}, {
        m: x.reshape(draws, *shape[m]) for m, x in sampled.items()
    }


def _encoder_weight(model: IMDer, modality: str) -> np.ndarray:
    """(D, D_m, k) of a modality's encoder; a modality that is D wide has none, its latents are its features."""
    if modality not in model.encoders:
        return np.eye(model.config.dim)[:, :, None]
    return model.encoders[modality].weight.detach().cpu().numpy()


def latent_posterior(
    model: IMDer, split: Split, missing: str, given: Iterable[str], draws: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`latent_posteriors` of one missing modality: mean (N, D, T') and draws (K, N, D, T')."""
    mean, sampled = latent_posteriors(model, split, given, draws, seed)
    return mean[missing], sampled[missing]


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
    """:func:`sample_quality` of recovered latents on the test split, for each incomplete pattern.

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
    split = data.test if not limit else data.test.first(limit)
    scale = Standardizer(model.modalities, model.config.dim)
    scale.fit({m: x.cpu() for m, x in encode_split(model, data.train).items()})
    latents = encode_split(model, split)
    true = scale({m: x.cpu() for m, x in latents.items()}).numpy()
    std, mean = scale.std[..., 0].numpy()[:, :, None], scale.mean[..., 0].numpy()[:, :, None]
    tables = []
    for pattern in chosen or patterns(model.modalities, complete=False):
        available = available_columns([pattern], model.modalities)
        missing = (~available[0]).nonzero()[:, 0].tolist()
        noise = SampleNoise(seed, split.ids, "posterior check")
        rows = available.expand(len(split), -1).to(latents[model.modalities[0]].device)
        join = lambda x, missing=missing: np.concatenate([x[..., i, :, :] for i in missing], axis=-2)  # noqa: E731
        condition, found = true[:, available[0].numpy()].reshape(len(split), -1), {}
        for name, sampler in samplers.items():
            drawn = model.recover(latents, rows, noise, draws, sampler)
            scaled = [scale({m: x[k].cpu() for m, x in drawn.items()}).numpy() for k in range(draws)]
            found[name] = join(np.stack(scaled))
        exact = None
        if data.process is not None:
            means, sampled = latent_posteriors(model, split, pattern, draws, seed)
            names = [(i, model.modalities[i]) for i in missing]
            exact = np.concatenate([(means[m] - mean[i]) / std[i] for i, m in names], axis=-2)
            found["exact"] = np.concatenate([(sampled[m] - mean[i]) / std[i] for i, m in names], axis=-2)
        for method, x in found.items():
            table = sample_quality(x, join(true), condition, exact)
            tables.append(table.assign(pattern="+".join(pattern), method=method))
        first, *others = samplers
        for name in others:
            table = sample_quality(found[name], join(true), condition, exact, against=found[first])
            tables.append(table.assign(pattern="+".join(pattern), method=f"{name} - {first}"))
    columns = ["pattern", "method", "metric", "value", "low", "high"]
    return pd.concat(tables, ignore_index=True)[columns]
