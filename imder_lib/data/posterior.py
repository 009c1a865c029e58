"""The exact posterior of missing features and the Bayes-optimal prediction, on synthetic data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from imder_lib.data.synthetic import AFFECT, EXPLAINABLE, LABEL_STD, AffectProcess
from imder_lib.errors import UserError

LOSSES = ("l1", "squared", "positive")


@dataclass(frozen=True)
class Posterior:
    """A mixture of Gaussians over the styles; the covariance of a style is the same for every sample.

    Attributes:
        weights: (N, R).
        means: (N, R, *shape).
        factor: (R, K, Q) and ``white`` float: covariance = factor factor^T + white^2 I, K = prod(shape).
    """

    weights: np.ndarray
    means: np.ndarray
    factor: np.ndarray
    white: float

    @property
    def mean(self) -> np.ndarray:
        """(N, *shape): of the mixture."""
        return np.einsum("nr,nr...->n...", self.weights, self.means)

    @property
    def variance(self) -> np.ndarray:
        """(N, *shape): marginal variances of the mixture."""
        within = ((self.factor**2).sum(2) + self.white**2).reshape(self.means.shape[1:])
        square = (self.means - self.mean[:, None]) ** 2
        square += within
        return np.einsum("nr,nr...->n...", self.weights, square)

    def covariance(self, style: int = 0) -> np.ndarray:
        """(K, K), given a style. Large for raw text: ask for an image instead."""
        return self.factor[style] @ self.factor[style].T + self.white**2 * np.eye(self.factor.shape[1])

    def sample(
        self, draws: int, rng: np.random.Generator, with_styles: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Independent draws (draws, N, *shape), and their styles (draws, N) on request."""
        n, R, *shape = self.means.shape
        styles = (rng.random((draws, n, 1)) > self.weights.cumsum(axis=1)).sum(axis=2).clip(max=R - 1)
        out = np.empty((draws, n, *shape))
        for r in range(R):
            d, i = np.nonzero(styles == r)
            around = rng.standard_normal((len(d), self.factor.shape[2])) @ self.factor[r].T
            out[d, i] = self.means[i, r] + around.reshape(len(d), *shape)
        if self.white:
            out += self.white * rng.standard_normal(out.shape)
        return (out, styles) if with_styles else out


def _check(process: AffectProcess, given: list[str], missing: Iterable[str]) -> None:
    missing = list(missing)
    if not given or not missing or set(given) & set(missing) or not {*given, *missing} <= set(process.loadings):
        raise UserError(f"expected missing modalities and the available ones, got {missing} given {given}")


def _map(process: AffectProcess, m: str, style: int, image: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Features (T*D,) of a style, or their image (K,), but for the noise: matrix on z (K, T*4) and offset (K,)."""
    A, b, T = process.loadings[m][style], process.tones[m][style], process.steps
    if image is None:
        return np.kron(np.eye(T), A), np.tile(b, T)
    if image.shape[1] != T * len(A):
        raise UserError(f"image has {image.shape[1]} columns, expected T*D = {T * len(A)}")
    image = image.reshape(-1, T, len(A))
    return (image @ A).reshape(len(image), -1), image.sum(1) @ b


def _root(covariance: np.ndarray) -> np.ndarray:
    """F with F F^T = covariance, which may be rank-deficient: no Cholesky."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return vectors * np.sqrt(np.clip(values, 0, None))


def exact_posterior(
    process: AffectProcess,
    features: Mapping[str, np.ndarray],
    modality: str,
    given: Iterable[str],
    image: np.ndarray | None = None,
) -> Posterior:
    """Posterior of one modality's features, or of a linear image of them, given other modalities.

    Args:
        process: of the data.
        features: modality -> (N, T, D_m); only those in ``given`` are read.
        modality: the missing one.
        given: the available ones.
        image: (K, T*D) matrix over the features flattened (T, D), see :func:`convolution_matrix`.

    Returns:
        Posterior of shape (T, D), or (K,) with an image.
    """
    _check(process, given := list(given), [modality])
    weights, of_z, covariances = process.affect_posterior(features, given)
    spread = None if image is None else process.noise[modality] ** 2 * (image @ image.T)
    means, factors = [], []
    for r, C in enumerate(covariances):
        matrix, offset = _map(process, modality, r, image)
        means.append(of_z[:, r] @ matrix.T + offset)
        factors.append(matrix @ np.linalg.cholesky(C) if image is None else _root(matrix @ C @ matrix.T + spread))
    means, factors = np.stack(means, axis=1), np.stack(factors)
    if image is not None:
        return Posterior(weights, means, factors, 0.0)
    return Posterior(weights, means.reshape(*weights.shape, process.steps, -1), factors, process.noise[modality])


def exact_mean(
    process: AffectProcess,
    features: Mapping[str, np.ndarray],
    modality: str,
    given: Iterable[str],
    image: np.ndarray | None = None,
) -> np.ndarray:
    """The mean of :func:`exact_posterior` without the rest of it: (N, T, D), or (N, K) with an image."""
    _check(process, given := list(given), [modality])
    weights, of_z, _ = process.affect_posterior(features, given)
    maps = [_map(process, modality, r, image) for r in range(len(process.prior))]
    out = sum(weights[:, r, None] * (of_z[:, r] @ matrix.T + offset) for r, (matrix, offset) in enumerate(maps))
    return out.reshape(len(out), process.steps, -1) if image is None else out


def draw_affect(
    process: AffectProcess,
    features: Mapping[str, np.ndarray],
    given: Iterable[str],
    draws: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Exact draws of z (draws, N, T, 4) and of the styles (draws, N), given some modalities."""
    weights, means, covariances = process.affect_posterior(features, given)
    means = means.reshape(*means.shape[:2], process.steps, AFFECT)
    return Posterior(weights, means, np.linalg.cholesky(covariances), 0.0).sample(draws, rng, with_styles=True)


def exact_draws(
    process: AffectProcess,
    features: Mapping[str, np.ndarray],
    given: Iterable[str],
    draws: int,
    rng: np.random.Generator,
    images: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Joint draws of all missing modalities: a draw has one style and one z in all of them.

    Args:
        process, features, given: as in :func:`exact_posterior`.
        draws: independent draws of each sample.
        images: missing modality -> (K_m, T*D_m) to draw images of the features, which are smaller than raw text.

    Returns:
        modality -> float32 (draws, N, T, D_m), or (draws, N, K_m) with an image; styles (draws, N)
    """
    given, images = list(given), images or {}
    missing = [m for m in process.loadings if m not in given]
    _check(process, given, missing)
    z, styles = draw_affect(process, features, given, draws, rng)
    z, out = z.reshape(*styles.shape, -1), {}
    for m in missing:
        image = images.get(m)
        of_noise = None if image is None else _root(image @ image.T)
        K = process.steps * process.loadings[m].shape[1] if image is None else len(image)
        x = np.empty((*styles.shape, K), dtype=np.float32)
        maps = [_map(process, m, r, image) for r in range(len(process.prior))]
        for k in range(draws):  # one draw of all samples at a time, to spare memory
            noise = rng.standard_normal(x.shape[1:])
            x[k] = process.noise[m] * (noise if of_noise is None else noise @ of_noise.T)
            for r, (matrix, offset) in enumerate(maps):
                i = styles[k] == r
                x[k, i] += z[k, i] @ matrix.T + offset
        out[m] = x.reshape(*styles.shape, process.steps, -1) if image is None else x
    return out, styles


def convolution_matrix(weight: np.ndarray, steps: int) -> np.ndarray:
    """A Conv1d without padding or bias as a matrix.

    Args:
        weight: (O, D, k).
        steps: T >= k.

    Returns:
        (O*(T-k+1), T*D): features flattened (T, D) to latents flattened (O, T').
    """
    out_channels, D, k = weight.shape
    out = np.zeros((out_channels, steps - k + 1, steps, D), dtype=weight.dtype)
    for t in range(steps - k + 1):
        out[:, t, t : t + k] = weight.transpose(0, 2, 1)
    return out.reshape(out_channels * (steps - k + 1), steps * D)


def style_shares(process: AffectProcess, features: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N, R): probabilities of the styles given complete features, measured or recovered."""
    return process.style_posterior(features, process.loadings)


def bayes_prediction(
    process: AffectProcess, features: Mapping[str, np.ndarray], available: np.ndarray, loss: str = "l1"
) -> np.ndarray:
    """The Bayes-optimal prediction of the label for each sample's availability pattern.

    Before the clip the label's posterior is a mixture of Gaussians. Its median gives the best MAE and the best ACC2.

    Args:
        process: of the data.
        features: modality -> (N, T, D_m).
        available: bool (N, M), columns in the process's order.
        loss: "l1" the median; "squared" the mean, both clipped to [-3, 3]; "positive" the probability of a label > 0.

    Returns:
        (N,), in units of the label, or probabilities.
    """
    if loss not in LOSSES:
        raise UserError(f"unknown loss {loss!r}: expected one of {LOSSES}")
    available = np.asarray(available)
    out = np.empty(len(available))
    for pattern in np.unique(available, axis=0):
        rows = (available == pattern).all(axis=1)
        given = [m for m, here in zip(process.loadings, pattern, strict=True) if here]
        seen = {m: np.asarray(features[m])[rows] for m in given or list(process.loadings)[:1]}
        weights, of_z, covariances = process.affect_posterior(seen, given)
        w = process.label_weights
        means = np.einsum("nrk,rk->nr", of_z, w)
        std = np.sqrt(np.einsum("rk,rkl,rl->r", w, covariances, w) + LABEL_STD**2 * (1 - EXPLAINABLE))
        if loss == "positive":
            out[rows] = (weights * ndtr(means / std)).sum(1)
        else:
            out[rows] = np.clip((weights * means).sum(1) if loss == "squared" else _median(weights, means, std), -3, 3)
    return out


def _median(weights: np.ndarray, means: np.ndarray, std: np.ndarray) -> np.ndarray:
    """(N,): medians of mixtures of normals, by bisection: weights and means (N, R), std (R,)."""
    low, high = means.min(axis=1), means.max(axis=1)
    for _ in range(50):
        middle = (low + high) / 2
        below = (weights * ndtr((middle[:, None] - means) / std)).sum(1) < 0.5
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2
