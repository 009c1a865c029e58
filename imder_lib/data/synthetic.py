"""The affect process: synthetic data whose posterior is known exactly. Always labelled synthetic.

A latent affect z_t in R^4 is a stationary AR(1) with unit variance; each modality is a fixed linear image of z_t
plus white noise; the label is a linear functional of the time-averaged z plus noise, clipped to [-3, 3]. All is
jointly Gaussian (but for the clip), so that posteriors and the Bayes-optimal prediction have closed forms.

Which modality hears which direction of affect, and how well, is set so that the Bayes-optimal ACC2 is about .87
with everything available, .85 with text, .66 with vision, .63 with audio: the shape of the published tables.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from imder_lib.data.schema import MultimodalData, Split
from imder_lib.errors import UserError

AFFECT = 4  # dimensions of z
PHI = 0.9  # AR(1) coefficient per step
SHARES = np.array([0.313, 0.35, 0.25, 0.087])  # of the label's explainable variance, by direction of z
EXPLAINABLE = 0.87  # squared correlation of the label with its noise-free part
LABEL_STD = 1.5
# Signal-to-noise ratio of one frame, by direction. Text hears three directions nearly exactly and is deaf to the
# fourth; vision and audio hear two each, faintly, the fourth among them.
SNR = {
    "text": (256.0, 256.0, 256.0, 0.0),
    "audio": (0.0, 0.0, 0.085, 0.054),
    "vision": (0.0, 0.114, 0.0, 0.064),
}
SIZES = {"train": 1284, "valid": 229, "test": 686}  # MOSI's
WIDTHS = {"text": 768, "audio": 5, "vision": 20}


@dataclass(frozen=True)
class AffectProcess:
    """The linear-Gaussian process.

    Attributes:
        loadings: modality -> A (D_m, 4); frame x_t = A z_t + noise.
        noise: modality -> standard deviation of the frame noise.
        steps: T.
    """

    loadings: dict[str, np.ndarray]
    noise: dict[str, float]
    steps: int

    @property
    def correlation(self) -> np.ndarray:
        """(T, T): Cov(z_s, z_t) of one direction, phi^|s-t|."""
        t = np.arange(self.steps)
        return PHI ** np.abs(t[:, None] - t)

    @property
    def label_weights(self) -> np.ndarray:
        """(T*4,): the label's noise-free part is this functional of z, flattened (T, 4)."""
        per_direction = LABEL_STD * np.sqrt(EXPLAINABLE * SHARES / self.correlation.mean())
        return np.tile(per_direction / self.steps, self.steps)

    def sample(self, n: int, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """n samples: features modality -> float32 (n, T, D_m), labels float32 (n,), z (n, T, 4)."""
        z = rng.standard_normal((n, self.steps, AFFECT))
        for t in range(1, self.steps):
            z[:, t] = PHI * z[:, t - 1] + np.sqrt(1 - PHI**2) * z[:, t]
        features = {}
        for m, A in self.loadings.items():
            x = rng.standard_normal((n, self.steps, len(A)), dtype=np.float32)
            x *= np.float32(self.noise[m])
            x += (z @ A.T).astype(np.float32)
            features[m] = x
        label = z.reshape(n, -1) @ self.label_weights
        label += LABEL_STD * np.sqrt(1 - EXPLAINABLE) * rng.standard_normal(n)
        return features, np.clip(label, -3, 3).astype(np.float32), z

    def affect_posterior(
        self, features: Mapping[str, np.ndarray], given: Iterable[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Posterior of z given some modalities: mean (N, T*4) and the covariance (T*4, T*4) that all samples share."""
        n = len(next(iter(features.values())))
        information = np.zeros((AFFECT, AFFECT))
        evidence = np.zeros((n, self.steps, AFFECT))
        for m in given:
            A, s2 = self.loadings[m], self.noise[m] ** 2
            information += A.T @ A / s2
            evidence += np.asarray(features[m]) @ (A / s2)
        prior_precision = np.kron(np.linalg.inv(self.correlation), np.eye(AFFECT))
        covariance = np.linalg.inv(prior_precision + np.kron(np.eye(self.steps), information))
        return evidence.reshape(n, -1) @ covariance, covariance


def affect_process(widths: Mapping[str, int] | None = None, steps: int = 50, seed: int = 0) -> AffectProcess:
    """A process for any widths: loadings have orthogonal columns, scaled so that features have variance 1 on average.

    Args:
        widths: modality -> D_m. Names other than text, audio, vision take one of their signal strengths in turn.
        steps: T >= 1.
        seed: of the loadings.
    """
    widths = dict(WIDTHS if widths is None else widths)
    if len(widths) < 2 or min(widths.values()) < 1 or steps < 1:
        raise UserError(f"expected at least two modalities, widths and steps >= 1; got {widths} and T = {steps}")
    loadings, noise = {}, {}
    for i, (m, D) in enumerate(widths.items()):
        snr = np.array(SNR.get(m, list(SNR.values())[i % len(SNR)]))
        rng = np.random.default_rng([seed, i])
        columns = np.linalg.qr(rng.standard_normal((max(D, AFFECT), AFFECT)))[0][:D]
        noise[m] = float(1 / np.sqrt(1 + snr.sum() / D))
        loadings[m] = columns * np.sqrt(snr) * noise[m]
    return AffectProcess(loadings, noise, steps)


def synthetic(
    sizes: Mapping[str, int] | None = None, widths: Mapping[str, int] | None = None, steps: int = 50, seed: int = 0
) -> MultimodalData:
    """A synthetic data set with its process. Defaults: MOSI's sizes, widths and steps."""
    sizes = SIZES | dict(sizes or {})
    if set(sizes) != set(SIZES) or min(sizes.values()) < 1:
        raise UserError(f"sizes must give train, valid and test at least one sample each, got {sizes}")
    process = affect_process(widths, steps, seed)
    splits = {}
    for i, (name, n) in enumerate(sizes.items()):
        features, labels, _ = process.sample(n, np.random.default_rng([seed, 1000 + i]))
        splits[name] = Split(features, labels, [f"synthetic/{name}/{j}" for j in range(n)], steps)
    recipe = repr((sizes, {m: A.shape[0] for m, A in process.loadings.items()}, steps, seed, SNR, PHI, SHARES.tolist()))
    return MultimodalData("synthetic", splits, hashlib.sha256(recipe.encode()).hexdigest(), process)
