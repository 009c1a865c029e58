"""Exact posteriors of missing features, and Bayes-optimal predictions, on synthetic data."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from imder_lib.data.process import AFFECT, LABEL_NOISE, AffectProcess, Features, GaussianMixture
from imder_lib.errors import UserError


@dataclass(frozen=True)
class Posterior:
    """The posterior of a missing modality x_t = A_r z_t + b_r + s e_t, a mixture of Gaussians over the styles r.

    Given r, x_t has mean A_r mu_{r,t} + b_r and covariance A_r C_{r,tt} A_r^T + s^2 I.
    """

    affect: GaussianMixture  # the posterior of (r, z): w, mu and C
    loadings: np.ndarray  # A (R, D, 4)
    tones: np.ndarray  # b (R, D)
    noise: float  # s

    @property
    def mean(self) -> np.ndarray:
        """(N, T, D): sum_r w_r (A_r mu_r + b_r)."""
        w, mu = self.affect.weights, self.affect.means
        return sum(w[:, r, None, None] * self._mean(mu[:, r], r) for r in range(w.shape[1]))

    def _mean(self, z: np.ndarray, style: int) -> np.ndarray:
        """(n, T, D): A_r z_t + b_r for z (n, T*4)."""
        return z.reshape(len(z), z.shape[1] // AFFECT, AFFECT) @ self.loadings[style].T + self.tones[style]

    def sample(self, z: np.ndarray, styles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draws, float32 (draws, N, T, D), given z (draws, N, T*4) and styles r (draws, N)."""
        shape = (*styles.shape, z.shape[2] // AFFECT, self.tones.shape[1])
        out = rng.standard_normal(shape, np.float32) * np.float32(self.noise)
        for k, style in enumerate(styles):
            for r in range(len(self.tones)):
                out[k, style == r] += self._mean(z[k, style == r], r).astype(np.float32)
        return out


def _posteriors(
    process: AffectProcess, features: Features, missing: list[str], given: list[str]
) -> dict[str, Posterior]:
    """The posterior of each missing modality; all share one posterior of style and affect."""
    if not given or not missing or set(given) & set(missing) or not {*given, *missing} <= set(process.loadings):
        raise UserError(f"expected missing modalities and the available ones, got {missing} given {given}")
    affect = process.affect_posterior(features, given)
    return {m: Posterior(affect, process.loadings[m], process.tones[m], process.noise[m]) for m in missing}


def exact_posterior(process: AffectProcess, features: Features, modality: str, given: Iterable[str]) -> Posterior:
    """Posterior of one missing modality (T, D), given one or more others; only these are read from the features."""
    return _posteriors(process, features, [modality], list(given))[modality]


def exact_draws(
    process: AffectProcess, features: Features, given: Iterable[str], draws: int, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Joint draws of all missing modalities: all modalities of a draw share its style and its z.

    Returns:
        modality -> float32 (draws, N, T, D_m); styles (draws, N)
    """
    given = list(given)
    missing = [m for m in process.loadings if m not in given]
    posteriors = _posteriors(process, features, missing, given)
    z, styles = posteriors[missing[0]].affect.sample(draws, rng)
    return {m: p.sample(z, styles, rng) for m, p in posteriors.items()}, styles


def bayes_prediction(process: AffectProcess, features: Features, available: np.ndarray, loss: str = "l1") -> np.ndarray:
    """The Bayes-optimal prediction of the label (N,), given the available modalities of each sample.

    Before it is clipped, the label has the posterior sum_r w_r N(v_r . mu_r, v_r^T C_r v_r + s_y^2), where v_r are the
    label weights. Its median is optimal for MAE and for ACC2.

    ``available``: bool (N, M), in the order of the process. ``loss``: "l1" for the median, "squared" for the mean, both
    clipped to [-3, 3]; "positive" for P(label > 0).
    """
    if loss not in ("l1", "squared", "positive"):
        raise UserError(f"unknown loss {loss!r}: expected 'l1', 'squared' or 'positive'")
    available, v = np.asarray(available), process.label_weights
    out = np.empty(len(available))
    for pattern in np.unique(available, axis=0):
        matching = np.flatnonzero((available == pattern).all(axis=1))
        given = [m for m, is_available in zip(process.loadings, pattern, strict=True) if is_available]
        for rows in np.array_split(matching, 1 + len(matching) // 256):  # text in float64 needs much memory
            read = {m: np.asarray(features[m])[rows] for m in given or list(process.loadings)[:1]}
            weights, mu, C = process.affect_posterior(read, given)
            means, std = np.einsum("nrq,rq->nr", mu, v), np.sqrt(np.einsum("rq,rqp,rp->r", v, C, v) + LABEL_NOISE**2)
            if loss == "positive":
                out[rows] = (weights * ndtr(means / std)).sum(1)
            else:
                best = (weights * means).sum(1) if loss == "squared" else _median(weights, means, std)
                out[rows] = np.clip(best, -3, 3)
    return out


def _median(weights: np.ndarray, means: np.ndarray, std: np.ndarray) -> np.ndarray:
    """(N,): medians of mixtures of Gaussians by bisection; weights and means (N, R), std (R,)."""
    low, high = means.min(axis=1), means.max(axis=1)
    for _ in range(50):
        middle = (low + high) / 2
        below = (weights * ndtr((middle[:, None] - means) / std)).sum(1) < 0.5
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2
