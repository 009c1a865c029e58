"""Synthetic data sets: two recipes for the affect process of :mod:`imder_lib.data.process`.

"synthetic" has three styles. Vision distinguishes them by its tone, audio hardly, text not at all. "ironic" inverts
the sign of the label, and its tone lies midway between the two others: the conditional mean of vision resembles an
ironic sample, and a prediction from it gets the sign wrong. "gaussian" has one style.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from imder_lib.config import WIDTHS, check_names
from imder_lib.data.mmsa import SIZES
from imder_lib.data.process import AFFECT, EXPLAINABLE, LABEL_STD, PHI, AffectProcess, correlation
from imder_lib.data.schema import Counts, MultimodalData, Split, checked_sizes
from imder_lib.errors import UserError

SHARES = np.array([0.313, 0.35, 0.25, 0.087])  # of the label's explainable variance, per direction of z


@dataclass(frozen=True)
class Recipe:
    """The constants of a process, and its default sizes."""

    prior: dict[str, float]  # style -> probability
    label: dict[str, float]  # style -> sign of w
    snr: dict[str, tuple[float, ...]]  # modality -> signal-to-noise ratio of a frame, per direction of z
    tones: dict[str, tuple[float, ...]]  # modality -> tone per style along one direction, in units of the frame noise
    signs: dict[tuple[str, str], tuple[float, ...]]  # (modality, style) -> signs of the loadings; +1 if absent
    sizes: dict[str, int]  # split -> N
    steps: int  # T


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


def affect_process(
    widths: Counts = None, steps: int | None = None, seed: int = 0, name: str = "synthetic"
) -> AffectProcess:
    """A process with random loadings, scaled so that features have variance 1 on average.

    Loadings have orthogonal columns; in modalities wider than 4 the tone is orthogonal to them. ``widths``, modality ->
    D_m, are MOSI's if None; modalities other than text, audio and vision take the constants of these in turn. T =
    ``steps`` is the recipe's if None.
    """
    if name not in RECIPES:
        raise UserError(f"unknown process {name!r}: expected one of {tuple(RECIPES)}")
    recipe = RECIPES[name]
    widths, steps = dict(WIDTHS["mosi"] if widths is None else widths), recipe.steps if steps is None else steps
    if len(widths) < 2 or min(widths.values()) < 1 or steps < 1:
        raise UserError(f"expected at least two modalities, widths and steps >= 1; got {widths} and T = {steps}")
    check_names(widths, "widths")
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
    sizes: Counts = None, widths: Counts = None, steps: int | None = None, seed: int = 0, name: str = "synthetic"
) -> MultimodalData:
    """A data set drawn from :func:`affect_process`, with its process; sizes: split -> N, the recipe's if absent."""
    process = affect_process(widths, steps, seed, name)
    sizes, splits = checked_sizes(sizes, RECIPES[name].sizes), {}
    for i, (split, n) in enumerate(sizes.items()):
        features, labels, *_ = process.sample(n, np.random.default_rng([seed, 1000 + i]))
        splits[split] = Split(features, labels, [f"{name}/{split}/{j}" for j in range(n)], process.steps)
    made = {m: A.shape[1] for m, A in process.loadings.items()}
    recipe = repr((name, RECIPES[name], sizes, made, process.steps, seed, PHI, SHARES.tolist(), EXPLAINABLE, LABEL_STD))
    return MultimodalData(name, splits, hashlib.sha256(recipe.encode()).hexdigest(), process)
