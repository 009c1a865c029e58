"""Synthetic data: known processes whose posteriors have closed forms.

    r ~ prior                                        style, a hidden class of the sample
    z_t = phi z_{t-1} + sqrt(1 - phi^2) e_t          affect in R^4, stationary with unit variance
    x_{m,t} = A_m(r) z_t + b_m(r) + s_m e_{m,t}      frame of modality m: loadings A, tone b, frame noise s
    y = clip(w(r) . mean_t(z_t) + s_y e, -3, 3)      label

All e are standard normal. Given r everything is linear and Gaussian, so posteriors are mixtures of Gaussians over r.

"synthetic" has three styles. Vision tells them apart by its tone, audio barely does, text not at all. "ironic" inverts
the sign of the label, and its tone lies midway between the two others: the conditional mean of vision resembles an
ironic sample, and a prediction from it gets the sign wrong. "gaussian" has one style.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from imder_lib.config import WIDTHS
from imder_lib.data.mmsa import SIZES
from imder_lib.data.schema import MultimodalData, Split, checked_sizes
from imder_lib.errors import UserError

AFFECT = 4  # dimensions of z
PHI = 0.9  # AR(1) coefficient per step
SHARES = np.array([0.313, 0.35, 0.25, 0.087])  # of the label's explainable variance, per direction of z
EXPLAINABLE = 0.87  # squared correlation of the label with its noise-free part
LABEL_STD = 1.5


@dataclass(frozen=True)
class Recipe:
    """The constants of a process.

    Attributes:
        prior: style -> probability.
        label: style -> sign of w.
        snr: modality -> signal-to-noise ratio of a frame, per direction of z.
        tones: modality -> tone per style along one direction, in units of the frame noise.
        signs: (modality, style) -> signs of the loadings, per direction of z; +1 if absent.
        sizes, steps: defaults of split -> N and of T.
    """

    prior: dict[str, float]
    label: dict[str, float]
    snr: dict[str, tuple[float, ...]]
    tones: dict[str, tuple[float, ...]]
    signs: dict[tuple[str, str], tuple[float, ...]]
    sizes: dict[str, int]
    steps: int


RECIPES = {
    "synthetic": Recipe(
        prior={"sincere": 0.4, "ironic": 0.2, "masked": 0.4},
        label={"sincere": 1, "ironic": -1, "masked": 1},
        snr={"text": (256, 256, 256, 0), "audio": (0.6, 0.6, 0.6, 0.3), "vision": (0.3, 0.3, 0, 0.3)},
        tones={"text": (0, 0, 0), "audio": (-0.2, 0, 0.2), "vision": (-2.0, 0, 2.0)},
        signs={("vision", "masked"): (-1, -1, 1, -1)},
        sizes={"train": 4000, "valid": 500, "test": 2000},
        steps=16,
    ),
    # Signal-to-noise ratios per modality and direction of z, set so that the Bayes-optimal ACC2 is about .87 with all
    # modalities, .85 with text, .66 with vision and .63 with audio, similar to the published tables.
    "gaussian": Recipe(
        prior={"plain": 1.0},
        label={"plain": 1},
        snr={"text": (256, 256, 256, 0), "audio": (0, 0, 0.085, 0.054), "vision": (0, 0.114, 0, 0.064)},
        tones={"text": (0,), "audio": (0,), "vision": (0,)},
        signs={},
        sizes=SIZES["mosi"],
        steps=50,
    ),
}


class AffectPosterior(NamedTuple):
    """Posterior of style and flattened z (T*4,): the mixture of Gaussians w_r N(z; mu_r, C_r).

    Attributes:
        weights: w (N, R).
        means: mu (N, R, T*4).
        covariances: C (R, T*4, T*4), shared by all samples.
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def sample(self, draws: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Independent draws of z (draws, N, T*4) and of the styles (draws, N)."""
        n, R, Q = self.means.shape
        styles = (rng.random((draws, n, 1)) > self.weights.cumsum(axis=1)).sum(axis=2).clip(max=R - 1)
        z = np.empty((draws, n, Q))
        for r, root in enumerate(np.linalg.cholesky(self.covariances)):
            d, i = np.nonzero(styles == r)
            z[d, i] = self.means[i, r] + rng.standard_normal((len(d), Q)) @ root.T
        return z, styles


@dataclass(frozen=True)
class AffectProcess:
    """A process as in the equations of this module, with R styles.

    Attributes:
        styles: names of the styles.
        prior: (R,), their probabilities.
        loadings: modality -> A (R, D_m, 4).
        tones: modality -> b (R, D_m).
        noise: modality -> s, the standard deviation of the frame noise.
        label: w (R, 4).
        steps: T.
    """

    styles: tuple[str, ...]
    prior: np.ndarray
    loadings: dict[str, np.ndarray]
    tones: dict[str, np.ndarray]
    noise: dict[str, float]
    label: np.ndarray
    steps: int

    @property
    def correlation(self) -> np.ndarray:
        """(T, T): Cov(z_s, z_t) of one direction, phi^|s-t|."""
        return correlation(self.steps)

    @property
    def label_weights(self) -> np.ndarray:
        """(R, T*4): the weights of the flattened z (T, 4) in the label."""
        return np.tile(self.label / self.steps, self.steps)

    def sample(
        self, n: int, rng: np.random.Generator
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
        """Features modality -> float32 (n, T, D_m), labels float32 (n,), z (n, T, 4) and styles (n,) of n samples."""
        R = len(self.prior)
        styles = rng.choice(R, n, p=self.prior) if R > 1 else np.zeros(n, dtype=np.int64)
        z = rng.standard_normal((n, self.steps, AFFECT))
        for t in range(1, self.steps):
            z[:, t] = PHI * z[:, t - 1] + np.sqrt(1 - PHI**2) * z[:, t]
        features, label = {}, np.empty(n)
        rows = [np.flatnonzero(styles == r) for r in range(R)]
        for m, A in self.loadings.items():
            x = rng.standard_normal((n, self.steps, A.shape[1]), dtype=np.float32)
            x *= np.float32(self.noise[m])
            for r, i in enumerate(rows):
                x[i] += (z[i] @ A[r].T + self.tones[m][r]).astype(np.float32)
            features[m] = x
        for r, i in enumerate(rows):
            label[i] = z[i].reshape(len(i), self.steps * AFFECT) @ self.label_weights[r]
        label += LABEL_STD * np.sqrt(1 - EXPLAINABLE) * rng.standard_normal(n)
        return features, np.clip(label, -3, 3).astype(np.float32), z, styles

    def affect_posterior(self, features: Mapping[str, np.ndarray], given: Iterable[str]) -> AffectPosterior:
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
        return AffectPosterior(softmax(log, axis=1), mu.swapaxes(0, 1), C)

    def style_posterior(self, features: Mapping[str, np.ndarray], given: Iterable[str]) -> np.ndarray:
        """(N, R): probabilities of the styles given some modalities."""
        return self.affect_posterior(features, given).weights


def correlation(steps: int) -> np.ndarray:
    """(T, T): Cov(z_s, z_t) of one direction, phi^|s-t|."""
    t = np.arange(steps)
    return PHI ** np.abs(t[:, None] - t)


def affect_process(
    widths: Mapping[str, int] | None = None, steps: int | None = None, seed: int = 0, name: str = "synthetic"
) -> AffectProcess:
    """A process with random loadings, scaled so that features have variance 1 on average.

    Loadings have orthogonal columns; in modalities wider than 4 the tone is orthogonal to them.

    Args:
        widths: modality -> D_m; MOSI's if None. Modalities other than text, audio and vision take the signal-to-noise
            ratios of these in turn.
        steps: T >= 1; the recipe's if None.
        seed: of the loadings and tones.
        name: "synthetic" or "gaussian".
    """
    if name not in RECIPES:
        raise UserError(f"unknown process {name!r}: expected one of {tuple(RECIPES)}")
    recipe = RECIPES[name]
    widths, steps = dict(WIDTHS["mosi"] if widths is None else widths), recipe.steps if steps is None else steps
    if len(widths) < 2 or min(widths.values()) < 1 or steps < 1:
        raise UserError(f"expected at least two modalities, widths and steps >= 1; got {widths} and T = {steps}")
    prior, loadings, tones, noise = np.array(list(recipe.prior.values())), {}, {}, {}
    for i, (m, D) in enumerate(widths.items()):
        like = m if m in recipe.snr else list(recipe.snr)[i % len(recipe.snr)]
        snr, tone = np.array(recipe.snr[like]), np.array(recipe.tones[like])
        signs = np.array([recipe.signs.get((like, style), (1,) * AFFECT) for style in recipe.prior])
        rng = np.random.default_rng([seed, i])
        columns = np.linalg.qr(rng.standard_normal((max(D, AFFECT), AFFECT)))[0][:D]
        direction = rng.standard_normal(D)
        direction -= columns @ (columns.T @ direction) if D > AFFECT else 0
        direction /= np.linalg.norm(direction)
        tone_variance = prior @ tone**2 - (prior @ tone) ** 2
        noise[m] = float(1 / np.sqrt(1 + (snr.sum() + tone_variance) / D))
        loadings[m] = columns * np.sqrt(snr) * noise[m] * signs[:, None]
        tones[m] = tone[:, None] * direction * noise[m]
    label = LABEL_STD * np.sqrt(EXPLAINABLE * SHARES / correlation(steps).mean())
    label = label * np.array([recipe.label[style] for style in recipe.prior])[:, None]
    return AffectProcess(tuple(recipe.prior), prior, loadings, tones, noise, label, steps)


def synthetic(
    sizes: Mapping[str, int] | None = None,
    widths: Mapping[str, int] | None = None,
    steps: int | None = None,
    seed: int = 0,
    name: str = "synthetic",
) -> MultimodalData:
    """A data set drawn from :func:`affect_process`, with its process; sizes: split -> N, the recipe's if absent."""
    process = affect_process(widths, steps, seed, name)
    sizes = checked_sizes(sizes, RECIPES[name].sizes)
    splits = {}
    for i, (split, n) in enumerate(sizes.items()):
        features, labels, *_ = process.sample(n, np.random.default_rng([seed, 1000 + i]))
        splits[split] = Split(features, labels, [f"{name}/{split}/{j}" for j in range(n)], process.steps)
    made = {m: A.shape[1] for m, A in process.loadings.items()}
    recipe = repr((name, RECIPES[name], sizes, made, process.steps, seed, PHI, SHARES.tolist(), EXPLAINABLE, LABEL_STD))
    return MultimodalData(name, splits, hashlib.sha256(recipe.encode()).hexdigest(), process)
