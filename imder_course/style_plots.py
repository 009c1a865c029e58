"""Figures of the hidden styles of synthetic data."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from imder_course.style import BLUE, GOLD, MAROON, SILVER, TRUTH, row
from imder_lib.data.synthetic import AffectProcess

LOOKS = ((BLUE, "o"), (MAROON, "^"), (GOLD, "s"))  # colour and marker of each style


def tone_plane(process: AffectProcess, modality: str, features: np.ndarray) -> np.ndarray:
    """Time averages of features (N, T, D) along tone and first loading, in units of the frame noise: (N, 2)."""
    tones = process.tones[modality]
    axes = np.stack([tones[-1] - tones[0], process.loadings[modality][0][:, 0]], axis=1)
    return features.mean(axis=1) @ axes / np.linalg.norm(axes, axis=0) / process.noise[modality]


def style_clouds(groups: Mapping[str, tuple[np.ndarray, np.ndarray]], names: Sequence[str]) -> Figure:
    """Points (N, 2) of :func:`tone_plane` with their styles (N,), one panel per group; the first group in grey."""
    figure, axes = row(len(groups), 3.1, 3.7, sharex=True, sharey=True)
    first = next(iter(groups.values()))[0]
    for axis, (title, (xy, styles)) in zip(axes, groups.items(), strict=True):
        axis.scatter(*first.T, s=10, color=SILVER, alpha=0.25, lw=0)
        for r, (name, (colour, marker)) in enumerate(zip(names, LOOKS, strict=False)):
            points, label = xy[styles == r], f"{name} {np.mean(styles == r):.0%}"
            axis.scatter(*points.T, s=12, color=colour, marker=marker, alpha=0.7, lw=0, label=label)
        axis.set(title=title, xlabel="along the tone (frame noise = 1)")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.19), handletextpad=0.1)
    axes[0].set_ylabel("along the first loading")
    return figure


def reliability(exact: np.ndarray, drawn: np.ndarray, names: Sequence[str], bins: int = 8) -> Figure:
    """Share of draws with each style against its exact probability, both (N, R), averaged in bins of equal size.

    Bars are two standard errors of the mean.
    """
    figure, axis = plt.subplots(figsize=(4.6, 3.8))
    axis.plot([0, 1], [0, 1], label="exact", **TRUTH)
    for r, (name, (colour, marker)) in enumerate(zip(names, LOOKS, strict=False)):
        groups = [g for g in np.array_split(np.argsort(exact[:, r]), bins) if len(g) > 1]
        x, y = ([v[g, r].mean() for g in groups] for v in (exact, drawn))
        error = [2 * (drawn - exact)[g, r].std(ddof=1) / len(g) ** 0.5 for g in groups]
        axis.errorbar(x, y, yerr=error, fmt=marker, ms=6, color=colour, lw=1.2, label=name)
    axis.set(xlabel="exact probability of the style", ylabel="share of the draws")
    axis.legend()
    return figure
