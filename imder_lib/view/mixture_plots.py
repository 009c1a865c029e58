"""Figures of 02: a mixture of Gaussians drowning in noise, and coming back from it."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from imder_lib.view.style import BLUE, BROWN, GOLD, SILVER, TRUTH

Curves = Mapping[str, np.ndarray]  # name -> values on a grid


def density_and_score(grid: np.ndarray, density: Curves, score: Curves) -> Figure:
    """Density (above) and score (below) over x, a column a noise level.

    Arrows point where the score points; a dot stands where it falls through 0, a hump, a ring where it rises.
    """
    figure, axes = plt.subplots(2, len(density), figsize=(2.9 * len(density), 4.4), sharex=True, sharey="row")
    for upper, lower, (name, p), s in zip(*axes, density.items(), score.values(), strict=True):
        upper.fill_between(grid, p, color=BLUE, alpha=0.25, lw=0)
        upper.plot(grid, p, color=BLUE)
        lower.plot(grid, s, color=BROWN)
        lower.axhline(0, color=SILVER, lw=1)
        at = np.linspace(0, len(grid) - 1, 13).astype(int)[1:-1]
        lower.quiver(grid[at], 0 * at - 5.3, np.sign(s[at]), 0 * at, color=SILVER, scale=18, width=0.012)
        zeros = np.flatnonzero(np.sign(s[1:]) != np.sign(s[:-1]))
        falls = np.where(s[zeros] > 0, BROWN, "white")
        lower.scatter(grid[zeros], 0 * zeros, s=36, c=falls, edgecolors=BROWN, zorder=3)
        upper.set(title=name)
        lower.set(xlabel="x", ylim=(-6, 6))
    axes[0][0].set_ylabel("density p(x)")
    axes[1][0].set_ylabel("score d/dx log p(x)")
    return figure


def paths(
    levels: np.ndarray, trajectories: Curves, grid: np.ndarray, target: np.ndarray, *, xlabel: str, log: bool = True
) -> Figure:
    """Trajectories of x, (S, N) each, over noise levels or times (S,), one panel a name; right: the target's density.

    Three trajectories are coloured, by where they start. A logarithmic axis runs from noise at the left to data at the
    right.
    """
    figure, axes = plt.subplots(
        1,
        2 * len(trajectories),
        figsize=(5.2 * len(trajectories), 3.5),
        width_ratios=(4, 1) * len(trajectories),
        sharey=True,
    )
    for i, (name, x) in enumerate(trajectories.items()):
        trajectory, side = axes[2 * i], axes[2 * i + 1]
        shown = levels[: len(x)]
        trajectory.plot(shown, x[:, :30], lw=0.7, alpha=0.5, color=SILVER)
        strong = np.argsort(x[0])[(np.array([0.2, 0.5, 0.8]) * x.shape[1]).astype(int)]  # low, middle and high starts
        for k, colour in zip(strong, (BLUE, BROWN, GOLD), strict=True):
            trajectory.plot(shown, x[:, k], lw=1.3, color=colour)
        trajectory.set(title=name, xlabel=xlabel, ylim=(grid[0], grid[-1]))
        if log:
            trajectory.set_xscale("log")
            trajectory.invert_xaxis()
        side.stairs(*np.histogram(x[-1], np.linspace(grid[0], grid[-1], 61), density=True), orientation="horizontal",
                    fill=True, color=BLUE, alpha=0.35)  # fmt: skip
        side.plot(target, grid, **TRUTH)
        side.set(xticks=[], xlabel="density")
    axes[0].set_ylabel("x")
    return figure


def two_answers(
    cloud: np.ndarray, c: float, grid: np.ndarray, exact: np.ndarray, draws: np.ndarray, mean: float
) -> Figure:
    """Pairs (x, c) with one condition marked; what x may be then: exact density, draws, and the mean of both."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    left.scatter(cloud[:, 1], cloud[:, 0], s=6, alpha=0.4, lw=0)
    left.axvline(c, color=BROWN)
    left.set(xlabel="c, available", ylabel="x, missing", title=f"pairs; one condition, c = {c:g}")
    right.stairs(*np.histogram(draws, np.linspace(grid[0], grid[-1], 61), density=True), fill=True, color=BLUE,
                 alpha=0.35, label=f"{len(draws)} draws")  # fmt: skip
    right.plot(grid, exact, label="exact p(x | c)", **TRUTH)
    right.axvline(mean, color=GOLD, lw=2, label="mean: the best single guess")
    right.set(xlabel="x", ylabel="density", title=f"what x may be, given c = {c:g}")
    right.set_ylim(top=1.45 * right.get_ylim()[1])  # room for the legend
    right.legend()
    return figure


def learned_and_exact(grid: np.ndarray, exact: Curves, learned: Curves, title: str) -> Figure:
    """A learned curve over x beside the exact one, a panel a noise level."""
    figure, axes = plt.subplots(1, len(exact), figsize=(3.2 * len(exact), 3.2), sharey=True)
    for axis, (name, y), z in zip(axes, exact.items(), learned.values(), strict=True):
        axis.plot(grid, y, label="exact", **TRUTH)
        axis.plot(grid, z, color=BLUE, label="net")
        axis.set(title=name, xlabel="x")
    axes[0].set_ylabel(title)
    axes[0].legend()
    return figure


def crescents(groups: Mapping[str, np.ndarray], mean: np.ndarray) -> Figure:
    """Groups of points (N, 2) of one posterior, a panel each on one scale, and the conditional mean (2,) in each."""
    size = (3.2 * len(groups), 3.6)
    figure, axes = plt.subplots(1, len(groups), figsize=size, sharex=True, sharey=True, squeeze=False)
    for axis, (name, points) in zip(axes[0], groups.items(), strict=True):
        axis.scatter(*points.T, s=6, alpha=0.4, lw=0, color=BLUE)
        axis.plot(*mean, "X", ms=11, color=BROWN, label="conditional mean", ls="none")
        axis.set(title=f"{name} (N = {len(points)})", xlabel="theta 1", aspect="equal")
    axes[0][0].set_ylabel("theta 2")
    axes[0][0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
    reach = 1.2 * np.abs(next(iter(groups.values())) - mean).max()  # the first group sets the frame
    axes[0][0].set(xlim=(mean[0] - reach, mean[0] + reach), ylim=(mean[1] - reach, mean[1] + reach))
    return figure
