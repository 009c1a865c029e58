"""Exact posteriors of missing features, and Bayes-optimal predictions, on synthetic data.

A missing modality m, flattened to (T*D,), is x = M_r z + h_r + s_m e, with M_r = I_T (x) A_m(r), h_r = 1_T (x) b_m(r).
A linear image of it is G x = G M_r z + G h_r + s_m G e. The posterior of both is a :class:`Posterior`.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from scipy.special import ndtr

from imder_lib.data.mixture import Posterior
from imder_lib.data.process import LABEL_NOISE, AffectProcess, Features
from imder_lib.errors import UserError


def _posteriors(
    process: AffectProcess, features: Features, missing: list[str], given: list[str], images: Features
) -> dict[str, Posterior]:
    """The posterior of each missing modality, or of its image; all share one posterior of style and affect."""
    if not given or not missing or set(given) & set(missing) or not {*given, *missing} <= set(process.loadings):
        raise UserError(f"expected missing modalities and the available ones, got {missing} given {given}")
    affect, T, out = process.affect_posterior(features, given), process.steps, {}
    for m in missing:
        A, b, G = process.loadings[m], process.tones[m], images.get(m)  # (R, D, 4), (R, D), (K, T*D)
        R, D, _ = A.shape
        if G is None:
            M, h, shape = np.stack([np.kron(np.eye(T), a) for a in A]), np.tile(b, T), (T, D)
        elif G.shape[1] == T * D:
            by_step = G.reshape(-1, T, D)
            M, h, shape = (by_step @ A[:, None]).reshape(R, len(G), -1), b @ by_step.sum(1).T, (len(G),)
        else:
            raise UserError(f"image has {G.shape[1]} columns, expected T*D = {T * D}")
        out[m] = Posterior(affect, M, h, process.noise[m], G, shape)
    return out


def exact_posterior(
    process: AffectProcess, features: Features, modality: str, given: Iterable[str], image: np.ndarray | None = None
) -> Posterior:
    """Posterior of one missing modality, or of a linear image of it, given other modalities.

    Args:
        process: of the data.
        features: modality -> (N, T, D_m); only those in ``given`` are read.
        modality: the missing one.
        given: the available ones.
        image: G (K, T*D) for features flattened (T, D), see :func:`convolution_matrix`.

    Returns:
        Posterior of shape (T, D), or (K,) with an image.

    Raises:
        UserError: unknown modalities, none given, or an image of another width.
    """
    return _posteriors(process, features, [modality], list(given), {modality: image})[modality]


def exact_mean(
    process: AffectProcess, features: Features, modality: str, given: Iterable[str], image: np.ndarray | None = None
) -> np.ndarray:
    """The conditional mean of :func:`exact_posterior`: (N, T, D), or (N, K) with an image."""
    return exact_posterior(process, features, modality, given, image).mean


def exact_draws(
    process: AffectProcess,
    features: Features,
    given: Iterable[str],
    draws: int,
    rng: np.random.Generator,
    images: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Joint draws of all missing modalities: all modalities of a draw share its style and its z.

    Args:
        process, features, given: as in :func:`exact_posterior`.
        draws: number of independent draws of each sample.
        images: missing modality -> G (K_m, T*D_m), to draw images in place of features.

    Returns:
        modality -> float32 (draws, N, T, D_m), or (draws, N, K_m) with an image; styles (draws, N)
    """
    given = list(given)
    missing = [m for m in process.loadings if m not in given]
    posteriors = _posteriors(process, features, missing, given, images or {})
    z, styles = posteriors[missing[0]].affect.sample(draws, rng)
    return {m: p.sample_given_affect(z, styles, rng, np.float32) for m, p in posteriors.items()}, styles


def convolution_matrix(weight: np.ndarray, steps: int) -> np.ndarray:
    """A Conv1d without padding or bias as a matrix.

    Args:
        weight: (O, D, k).
        steps: T >= k.

    Returns:
        (O*(T-k+1), T*D): from features flattened (T, D) to latents flattened (O, T').
    """
    out_channels, D, k = weight.shape
    out = np.zeros((out_channels, steps - k + 1, steps, D), dtype=weight.dtype)
    for t in range(steps - k + 1):
        out[:, t, t : t + k] = weight.transpose(0, 2, 1)
    return out.reshape(out_channels * (steps - k + 1), steps * D)


def style_shares(process: AffectProcess, features: Features) -> np.ndarray:
    """(N, R): probabilities of the styles given features of all modalities, measured or recovered."""
    return process.style_posterior(features, process.loadings)


def bayes_prediction(process: AffectProcess, features: Features, available: np.ndarray, loss: str = "l1") -> np.ndarray:
    """The Bayes-optimal prediction of the label, given the available modalities of each sample.

    Before it is clipped, the label has the posterior sum_r w_r N(v_r . mu_r, v_r^T C_r v_r + s_y^2), where v_r are the
    label weights. Its median is optimal for MAE and for ACC2.

    Args:
        process: of the data.
        features: modality -> (N, T, D_m).
        available: bool (N, M), columns in the order of the process.
        loss: "l1" for the median, "squared" for the mean, both clipped to [-3, 3]; "positive" for P(label > 0).

    Returns:
        (N,), in units of the label, or probabilities.
    """
    if loss not in ("l1", "squared", "positive"):
        raise UserError(f"unknown loss {loss!r}: expected 'l1', 'squared' or 'positive'")
    available, v = np.asarray(available), process.label_weights
    out = np.empty(len(available))
    for pattern in np.unique(available, axis=0):
        rows = (available == pattern).all(axis=1)
        given = [m for m, is_available in zip(process.loadings, pattern, strict=True) if is_available]
        read = {m: np.asarray(features[m])[rows] for m in given or list(process.loadings)[:1]}
        weights, mu, C = process.affect_posterior(read, given)
        means = np.einsum("nrq,rq->nr", mu, v)
        std = np.sqrt(np.einsum("rq,rqp,rp->r", v, C, v) + LABEL_NOISE**2)
        if loss == "positive":
            out[rows] = (weights * ndtr(means / std)).sum(1)
        else:
            out[rows] = np.clip((weights * means).sum(1) if loss == "squared" else _median(weights, means, std), -3, 3)
    return out


def _median(weights: np.ndarray, means: np.ndarray, std: np.ndarray) -> np.ndarray:
    """(N,): medians of mixtures of Gaussians by bisection; weights and means (N, R), std (R,)."""
    low, high = means.min(axis=1), means.max(axis=1)
    for _ in range(50):
        middle = (low + high) / 2
        below = (weights * ndtr((middle[:, None] - means) / std)).sum(1) < 0.5
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2
