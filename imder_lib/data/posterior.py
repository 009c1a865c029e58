"""The exact posterior of missing features and the Bayes-optimal prediction: the kit's yardstick on synthetic data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from imder_lib.data.synthetic import AFFECT, AffectProcess
from imder_lib.errors import UserError


@dataclass(frozen=True)
class Posterior:
    """A Gaussian posterior; its covariance is the same for every sample.

    Attributes:
        mean: (N, *shape).
        factor: (K, R) and ``white`` float: covariance = factor factor^T + white^2 I, K = prod(shape).
    """

    mean: np.ndarray
    factor: np.ndarray
    white: float

    @property
    def variance(self) -> np.ndarray:
        """(*shape): marginal variances."""
        return ((self.factor**2).sum(1) + self.white**2).reshape(self.mean.shape[1:])

    @property
    def covariance(self) -> np.ndarray:
        """(K, K). Large for raw text: ask for an image instead."""
        return self.factor @ self.factor.T + self.white**2 * np.eye(len(self.factor))

    def sample(self, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Independent draws: (draws, N, *shape)."""
        shape = (draws, *self.mean.shape)
        out = (rng.standard_normal((draws, len(self.mean), self.factor.shape[1])) @ self.factor.T).reshape(shape)
        out += self.mean
        return out + self.white * rng.standard_normal(shape) if self.white else out


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
    given = list(given)
    if modality in given or modality not in process.loadings or not given:
        raise UserError(f"expected a missing modality and the available ones, got {modality!r} given {given}")
    mean, covariance = process.affect_posterior(features, given)  # of z, (N, T*4)
    A, T = process.loadings[modality], process.steps
    root = np.linalg.cholesky(covariance)  # (T*4, T*4)
    if image is None:
        root = np.einsum("dk,tkr->tdr", A, root.reshape(T, AFFECT, -1)).reshape(T * len(A), -1)
        return Posterior(mean.reshape(-1, T, AFFECT) @ A.T, root, process.noise[modality])
    if image.shape[1] != T * len(A):
        raise UserError(f"image has {image.shape[1]} columns, expected T*D = {T * len(A)}")
    of_z = (image.reshape(-1, T, len(A)) @ A).reshape(len(image), -1)  # (K, T*4)
    of_noise = process.noise[modality] ** 2 * (image @ image.T)
    total = of_z @ covariance @ of_z.T + of_noise
    values, vectors = np.linalg.eigh((total + total.T) / 2)  # images may be rank-deficient: no Cholesky
    return Posterior(mean @ of_z.T, vectors * np.sqrt(np.clip(values, 0, None)), 0.0)


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


def bayes_prediction(process: AffectProcess, features: Mapping[str, np.ndarray], available: np.ndarray) -> np.ndarray:
    """The Bayes-optimal prediction of the label for each sample's availability pattern.

    It is the clipped posterior mean: the posterior before the clip is Gaussian, so this is the median (best MAE) and
    has the sign of the likelier class (best ACC2).

    Args:
        process: of the data.
        features: modality -> (N, T, D_m).
        available: bool (N, M), columns in the process's order.

    Returns:
        (N,), in units of the label.
    """
    available = np.asarray(available)
    out = np.empty(len(available))
    for pattern in np.unique(available, axis=0):
        rows = (available == pattern).all(axis=1)
        given = [m for m, here in zip(process.loadings, pattern, strict=True) if here]
        mean, _ = process.affect_posterior({m: np.asarray(features[m])[rows] for m in process.loadings}, given)
        out[rows] = mean @ process.label_weights
    return np.clip(out, -3, 3)
