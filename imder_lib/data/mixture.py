"""Mixtures of Gaussians over styles: of the affect z, and of features x that are linear in z."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np


class GaussianMixture(NamedTuple):
    """p(r, z) = w_r N(z; mu_r, C_r) for N samples and R styles.

    Attributes:
        weights: w (N, R).
        means: mu (N, R, Q).
        covariances: C (R, Q, Q), shared by all samples.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def sample(self, draws: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Independent draws of z (draws, N, Q) and of r (draws, N)."""
        n, R, Q = self.means.shape
        styles = (rng.random((draws, n, 1)) > self.weights.cumsum(axis=1)).sum(axis=2).clip(max=R - 1)
        z = np.empty((draws, n, Q))
        for r, root in enumerate(np.linalg.cholesky(self.covariances)):
            d, i = np.nonzero(styles == r)
            z[d, i] = self.means[i, r] + rng.standard_normal((len(d), Q)) @ root.T
        return z, styles


@dataclass(frozen=True)
class Posterior:
    """The posterior of x = M_r z + h_r + s G e, with white noise e and a Gaussian mixture as the posterior of (r, z):

        p(x) = sum_r w_r N(x; M_r mu_r + h_r, M_r C_r M_r^T + s^2 G G^T).

    Attributes:
        affect: the posterior of (r, z): w, mu and C.
        matrices: M (R, K, Q).
        offsets: h (R, K).
        noise: s.
        image: G (K, T*D), or None for the identity.
        shape: of x: (T, D), or (K,) with an image.
    """

    affect: GaussianMixture
    matrices: np.ndarray
    offsets: np.ndarray
    noise: float
    image: np.ndarray | None
    shape: tuple[int, ...]

    @property
    def weights(self) -> np.ndarray:
        """(N, R): w."""
        return self.affect.weights

    @property
    def means(self) -> np.ndarray:
        """(N, R, *shape): M_r mu_r + h_r."""
        means = self.affect.means.swapaxes(0, 1) @ self.matrices.swapaxes(1, 2) + self.offsets[:, None]  # (R, N, K)
        return means.swapaxes(0, 1).reshape(*self.weights.shape, *self.shape)

    @property
    def mean(self) -> np.ndarray:
        """(N, *shape): sum_r w_r (M_r mu_r + h_r)."""
        styles = zip(self.weights.T, self.affect.means.swapaxes(0, 1), self.matrices, self.offsets, strict=True)
        return sum(w[:, None] * (mu @ M.T + h) for w, mu, M, h in styles).reshape(-1, *self.shape)

    @property
    def variance(self) -> np.ndarray:
        """(N, *shape): marginal variances of the mixture, sum_r w_r (var_r + (mean_r - mean)^2)."""
        noise = 1 if self.image is None else (self.image**2).sum(1)
        within = (self.matrices @ self.affect.covariances * self.matrices).sum(2) + self.noise**2 * noise
        total = (self.means - self.mean[:, None]) ** 2 + within.reshape(-1, *self.shape)
        return np.einsum("nr,nr...->n...", self.weights, total)

    def covariance(self, style: int = 0) -> np.ndarray:
        """(K, K): M_r C_r M_r^T + s^2 G G^T. Large for text: use an image."""
        M = self.matrices[style]
        noise = np.eye(len(M)) if self.image is None else self.image @ self.image.T
        return M @ self.affect.covariances[style] @ M.T + self.noise**2 * noise

    def sample(self, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Independent draws (draws, N, *shape)."""
        return self.sample_given_affect(*self.affect.sample(draws, rng), rng)

    def sample_given_affect(
        self, z: np.ndarray, styles: np.ndarray, rng: np.random.Generator, dtype: type = np.float64
    ) -> np.ndarray:
        """Draws (draws, N, *shape) of M_r z + h_r + s G e, given z (draws, N, Q) and styles r (draws, N)."""
        out = np.empty((*styles.shape, self.matrices.shape[1]), dtype)
        for k, style in enumerate(styles):  # one draw at a time, to limit memory
            e = rng.standard_normal(out.shape[1:])
            out[k] = self.noise * (e if self._root is None else e @ self._root.T)
            for r, (M, h) in enumerate(zip(self.matrices, self.offsets, strict=True)):
                out[k, style == r] += z[k, style == r] @ M.T + h
        return out.reshape(*styles.shape, *self.shape)

    @cached_property
    def _root(self) -> np.ndarray | None:
        """F (K, K) with F F^T = G G^T; from eigenvectors, because G G^T may be singular."""
        if self.image is None:
            return None
        values, vectors = np.linalg.eigh(self.image @ self.image.T)
        return vectors * np.sqrt(np.clip(values, 0, None))
