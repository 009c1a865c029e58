"""Exact posteriors of missing features, and Bayes-optimal predictions, on synthetic data.

A missing modality m, flattened to (T*D,), is x = M_r z + h_r + s_m e, with M_r = I_T (x) A_m(r), h_r = 1_T (x) b_m(r).
A linear image of it is G x = G M_r z + G h_r + s_m G e. The posterior of both is a :class:`Posterior`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from imder_lib.data.process import LABEL_NOISE, AffectProcess, Features, GaussianMixture
from imder_lib.errors import UserError


@dataclass(frozen=True)
class Posterior:
    """The posterior of x = M_r z + h_r + s G e, with white noise e and a Gaussian mixture as the posterior of (r, z):

    p(x) = sum_r w_r N(x; M_r mu_r + h_r, M_r C_r M_r^T + s^2 G G^T).
    """

    affect: GaussianMixture  # the posterior of (r, z): w, mu and C
    matrices: np.ndarray  # M (R, K, Q)
    offsets: np.ndarray  # h (R, K)
    noise: float  # s
    image: np.ndarray | None  # G (K, T*D), or None for the identity
    shape: tuple[int, ...]  # of x: (T, D), or (K,) with an image

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
        root = None
        if self.image is not None:  # F with F F^T = G G^T, from eigenvectors, because G G^T may be singular
            values, vectors = np.linalg.eigh(self.image @ self.image.T)
            root = vectors * np.sqrt(np.clip(values, 0, None))
        out = np.empty((*styles.shape, self.matrices.shape[1]), dtype)
        for k, style in enumerate(styles):  # one draw at a time, to limit memory
            e = rng.standard_normal(out.shape[1:])
            out[k] = self.noise * (e if root is None else e @ root.T)
            for r, (M, h) in enumerate(zip(self.matrices, self.offsets, strict=True)):
                out[k, style == r] += z[k, style == r] @ M.T + h
        return out.reshape(*styles.shape, *self.shape)


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
    """Posterior of one missing modality (T, D), given other modalities; only these are read from the features.

    With an ``image`` G (K, T*D), such as a :func:`convolution_matrix`, it is that of G x (K,), for x flattened (T, D).
    A UserError for unknown modalities, none given, or an image of another width.
    """
    return _posteriors(process, features, [modality], list(given), {modality: image})[modality]


def exact_draws(
    process: AffectProcess,
    features: Features,
    given: Iterable[str],
    draws: int,
    rng: np.random.Generator,
    images: Features | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Joint draws of all missing modalities: all modalities of a draw share its style and its z.

    With ``images``, missing modality -> G (K_m, T*D_m), the draws are of G x, as in :func:`exact_posterior`.

    Returns:
        modality -> float32 (draws, N, T, D_m), or (draws, N, K_m) with an image; styles (draws, N)
    """
    given = list(given)
    missing = [m for m in process.loadings if m not in given]
    posteriors = _posteriors(process, features, missing, given, images or {})
    z, styles = posteriors[missing[0]].affect.sample(draws, rng)
    return {m: p.sample_given_affect(z, styles, rng, np.float32) for m, p in posteriors.items()}, styles


def convolution_matrix(weight: np.ndarray, steps: int) -> np.ndarray:
    """A Conv1d with weight (O, D, k), without padding or bias, over T >= k steps as a matrix (O*(T-k+1), T*D).

    It maps features flattened (T, D) to latents flattened (O, T').
    """
    out_channels, D, k = weight.shape
    out = np.zeros((out_channels, steps - k + 1, steps, D), dtype=weight.dtype)
    for t in range(steps - k + 1):
        out[:, t, t : t + k] = weight.transpose(0, 2, 1)
    return out.reshape(-1, steps * D)


def bayes_prediction(process: AffectProcess, features: Features, available: np.ndarray, loss: str = "l1") -> np.ndarray:
    """The Bayes-optimal prediction of the label (N,), given the available modalities of each sample.

    Before it is clipped, the label has the posterior sum_r w_r N(v_r . mu_r, v_r^T C_r v_r + s_y^2), where v_r are the
    label weights. Its median is optimal for MAE and for ACC2.

    Args:
        available: bool (N, M), columns in the order of the process.
        loss: "l1" for the median, "squared" for the mean, both clipped to [-3, 3]; "positive" for P(label > 0).
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
