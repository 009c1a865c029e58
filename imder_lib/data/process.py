"""The affect process: a model of synthetic data in which every posterior has a closed form.

    r ~ prior                                        style, a hidden class of the sample
    z_t = phi z_{t-1} + sqrt(1 - phi^2) e_t          affect in R^4, stationary with unit variance
    x_{m,t} = A_m(r) z_t + b_m(r) + s_m e_{m,t}      frame of modality m: loadings A, tone b, frame noise s
    y = clip(w(r) . mean_t(z_t) + s_y e, -3, 3)      label

All e are standard normal. Given r everything is linear and Gaussian, so posteriors are mixtures of Gaussians over r.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

Features = Mapping[str, np.ndarray]  # modality -> (N, T, D_m)

AFFECT = 4  # dimensions of z
PHI = 0.9  # AR(1) coefficient per step
EXPLAINABLE = 0.87  # squared correlation of the label with its noise-free part
LABEL_STD = 1.5
LABEL_NOISE = LABEL_STD * np.sqrt(1 - EXPLAINABLE)  # s_y


def correlation(steps: int) -> np.ndarray:
    """(T, T): Cov(z_s, z_t) of one direction, phi^|s-t|."""
    t = np.arange(steps)
    return PHI ** np.abs(t[:, None] - t)


class GaussianMixture(NamedTuple):
    """p(r, z) = w_r N(z; mu_r, C_r) for N samples and R styles, of z in R^Q."""

    weights: np.ndarray  # w (N, R)
    means: np.ndarray  # mu (N, R, Q)
    covariances: np.ndarray  # C (R, Q, Q), shared by all samples

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
class AffectProcess:
    """The process of this module's equations, with R styles and M modalities."""

    styles: tuple[str, ...]
    prior: np.ndarray  # (R,), probabilities of the styles
    loadings: dict[str, np.ndarray]  # modality -> A (R, D_m, 4)
    tones: dict[str, np.ndarray]  # modality -> b (R, D_m)
    noise: dict[str, float]  # modality -> s, the standard deviation of the frame noise
    label: np.ndarray  # w (R, 4)
    steps: int  # T

    @property
    def label_weights(self) -> np.ndarray:
        """(R, T*4): the weights of the flattened z (T, 4) in the label."""
        return np.tile(self.label / self.steps, self.steps)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[Features, np.ndarray, np.ndarray, np.ndarray]:
        """Features modality -> float32 (n, T, D_m), labels float32 (n,), z (n, T, 4) and styles (n,) of n samples."""
        R = len(self.prior)
        styles = rng.choice(R, n, p=self.prior) if R > 1 else np.zeros(n, dtype=np.int64)
        rows = [np.flatnonzero(styles == r) for r in range(R)]
        z = rng.standard_normal((n, self.steps, AFFECT))
        for t in range(1, self.steps):
            z[:, t] = PHI * z[:, t - 1] + np.sqrt(1 - PHI**2) * z[:, t]
        features, label = {}, np.empty(n)
        for m, A in self.loadings.items():
            x = features[m] = rng.standard_normal((n, self.steps, A.shape[1]), dtype=np.float32)
            x *= np.float32(self.noise[m])
            for r, i in enumerate(rows):
                for part in np.array_split(i, 1 + len(i) // 256):  # float64 for few samples at a time
                    x[part] += (z[part] @ A[r].T + self.tones[m][r]).astype(np.float32)
        for r, i in enumerate(rows):
            label[i] = z[i].reshape(len(i), self.steps * AFFECT) @ self.label_weights[r]
        label += LABEL_NOISE * rng.standard_normal(n)
        return features, np.clip(label, -3, 3).astype(np.float32), z, styles

    def affect_posterior(self, features: Features, given: Iterable[str]) -> GaussianMixture:
        """Posterior of style and z, given the modalities ``given`` of features modality -> (N, T, D_m).

        With K the covariance (T, T) of z over time, for each style

            C = (K^-1 (x) I_4 + I_T (x) sum_m A_m^T A_m / s_m^2)^-1,
            mu = C e,    e_t = sum_m A_m^T (x_{m,t} - b_m) / s_m^2,
            log w = log prior + (mu . e + log det C) / 2 + sum_m (b_m . sum_t x_{m,t} - T |b_m|^2 / 2) / s_m^2 + const.
        """
        n, R, T = len(next(iter(features.values()))), len(self.prior), self.steps
        information, e, log = np.zeros((R, AFFECT, AFFECT)), np.zeros((R, n, T, AFFECT)), np.log(self.prior)
        for m in given:
            A, b, s2 = self.loadings[m], self.tones[m], self.noise[m] ** 2
            x = np.asarray(features[m], dtype=np.float64)
            information += A.swapaxes(1, 2) @ A / s2
            A_x, A_b = np.einsum("ntd,rdk->rntk", x, A, optimize=True), np.einsum("rd,rdk->rk", b, A)
            e += (A_x - A_b[:, None, None]) / s2
            log = log + (x.sum(1) @ b.T - T * (b**2).sum(1) / 2) / s2
        prior_precision = np.kron(np.linalg.inv(correlation(T)), np.eye(AFFECT))
        C = np.linalg.inv(np.stack([prior_precision + np.kron(np.eye(T), i) for i in information]))
        e = e.reshape(R, n, -1)
        mu = e @ C
        log = log + ((mu * e).sum(2) + np.linalg.slogdet(C)[1][:, None]).T / 2
        return GaussianMixture(softmax(log, axis=1), mu.swapaxes(0, 1), C)

    def style_posterior(self, features: Features, given: Iterable[str]) -> np.ndarray:
        """(N, R): probabilities of the styles given some modalities."""
        return self.affect_posterior(features, given).weights
