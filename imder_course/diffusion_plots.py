"""Figures of the diffusion notebooks: mixtures of Gaussians, the Gaussian pair, sample quality, network calls."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from imder_course.style import BESIDE, BLUE, BROWN, GOLD, MARKERS, SILVER, TRUTH, legend_above, row

Curves = Mapping[str, np.ndarray]  # name -> values on a grid
FILLED = {"density": True, "histtype": "stepfilled", "color": BLUE, "alpha": 0.35, "lw": 0}


def density_and_score(grid: np.ndarray, density: Curves, score: Curves) -> Figure:
    """Density (above) and score (below) over x, one column per noise level.

    Arrows show the sign of the score. Dots mark its falling zeros (maxima of the density), rings its rising ones.
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
    """Trajectories of x, one panel per name, each with a histogram of the final values and the target density.

    Args:
        levels: noise levels or times (S,), from noise to data.
        trajectories: name -> (S, N); three of the N with a low, middle and high initial value are coloured.
        grid, target: grid of x and density of the target on it, (G,).
        xlabel: label of the axis of levels.
        log: logarithmic axis, with noise on the left.
    """
    count = len(trajectories)
    figure, axes = row(2 * count, 2.6, 3.5, width_ratios=(4, 1) * count, sharey=True)
    for axis, side, (name, x) in zip(axes[::2], axes[1::2], trajectories.items(), strict=True):
        shown = levels[: len(x)]
        axis.plot(shown, x[:, :30], lw=0.7, alpha=0.5, color=SILVER)
        strong = np.argsort(x[0])[(np.array([0.2, 0.5, 0.8]) * x.shape[1]).astype(int)]  # by initial value
        for k, colour in zip(strong, (BLUE, BROWN, GOLD), strict=True):
            axis.plot(shown, x[:, k], lw=1.3, color=colour)
        axis.set(title=name, xlabel=xlabel, ylim=(grid[0], grid[-1]))
        if log:
            axis.set_xscale("log")
            axis.invert_xaxis()
        side.hist(x[-1], np.linspace(grid[0], grid[-1], 61), orientation="horizontal", **FILLED)
        side.plot(target, grid, **TRUTH)
        side.set(xticks=[], xlabel="density")
    axes[0].set_ylabel("x")
    return figure


def two_answers(
    cloud: np.ndarray, c: float, grid: np.ndarray, exact: np.ndarray, draws: np.ndarray, mean: float
) -> Figure:
    """Pairs (x, c) with one condition marked, and the density, draws and mean of x given that condition."""
    figure, (left, right) = row(2, 5, 3.6)
    left.scatter(cloud[:, 1], cloud[:, 0], s=6, alpha=0.4, lw=0)
    left.axvline(c, color=BROWN)
    left.set(xlabel="c, available", ylabel="x, missing", title=f"pairs; one condition, c = {c:g}")
    right.hist(draws, np.linspace(grid[0], grid[-1], 61), label=f"{len(draws)} draws", **FILLED)
    right.plot(grid, exact, label="exact p(x | c)", **TRUTH)
    right.axvline(mean, color=GOLD, lw=2, label="mean: the best single guess")
    right.set(xlabel="x", ylabel="density", title=f"what x may be, given c = {c:g}")
    legend_above(right, 0.45)
    return figure


def learned_and_exact(grid: np.ndarray, exact: Curves, learned: Curves, title: str) -> Figure:
    """A learned curve and the exact one over x, one panel per noise level."""
    figure, axes = row(len(exact), 3.2, 3.2, sharey=True)
    for axis, (name, y), z in zip(axes, exact.items(), learned.values(), strict=True):
        axis.plot(grid, y, label="exact", **TRUTH)
        axis.plot(grid, z, color=BLUE, label="net")
        axis.set(title=name, xlabel="x")
    axes[0].set_ylabel(title)
    axes[0].legend()
    return figure


def crescents(groups: Mapping[str, np.ndarray], mean: np.ndarray) -> Figure:
    """Groups of points (N, 2) with the conditional mean (2,), one panel per group, all with the same axes."""
    figure, axes = row(len(groups), 3.2, 3.6, sharex=True, sharey=True)
    for axis, (name, points) in zip(axes, groups.items(), strict=True):
        axis.scatter(*points.T, s=6, alpha=0.4, lw=0, color=BLUE)
        axis.plot(*mean, "X", ms=11, color=BROWN, label="conditional mean", ls="none")
        axis.set(title=f"{name} (N = {len(points)})", xlabel="theta 1", aspect="equal")
    axes[0].set_ylabel("theta 2")
    axes[0].legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
    reach = 1.2 * np.abs(next(iter(groups.values())) - mean).max()  # the first group determines the axis limits
    axes[0].set(xlim=(mean[0] - reach, mean[0] + reach), ylim=(mean[1] - reach, mean[1] + reach))
    return figure


def realised_rates(table: pd.DataFrame) -> Figure:
    """Realised against nominal missing rate, one line per split; columns split, nominal, realised."""
    figure, axis = plt.subplots(figsize=(6.4, 4))
    axis.plot([0, 0.7], [0, 0.7], label="nominal", **TRUTH)
    for (split, part), marker in zip(table.groupby("split", sort=False), MARKERS, strict=False):
        axis.plot(part["nominal"], part["realised"], marker=marker, ms=5, label=split)
    axis.set(xlabel="nominal missing rate", ylabel="realised missing rate")
    axis.legend()
    return figure


def denoiser_weights(sigma: np.ndarray, weights: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Weights a (of x_t) and b (of the condition) in the optimal denoiser against sigma, one line per training rule."""
    figure, axes = row(2, 5, 3.6)
    for i, (axis, title) in enumerate(zip(axes, ("$x_t$", "the condition"), strict=True)):
        for (name, pair), line in zip(weights.items(), ("-", "--", "-."), strict=False):
            axis.plot(sigma, pair[i], line, lw=2, label=name)
        axis.axhline(0, color="black", lw=0.8)
        axis.set(xscale="log", xlabel="noise level sigma", title=f"{'ab'[i]}, the weight of {title}")
    axes[1].legend(title="condition in training")
    return figure


def pair_scatter(
    groups: Mapping[str, tuple[np.ndarray, np.ndarray]], slopes: Mapping[str, float], truth: float
) -> Figure:
    """Samples x (N,) against conditions c (N,), one panel per group, with the sampled and the true slope."""
    figure, axes = row(len(groups), 2.9, 3.4, sharex=True, sharey=True)
    ends = np.array([-3.0, 3.0])
    for axis, (name, (x, c)) in zip(axes, groups.items(), strict=True):
        axis.scatter(c, x, s=5, alpha=0.3, lw=0)
        axis.plot(ends, slopes[name] * ends, color=BROWN, lw=2, label="sampled")
        axis.plot(ends, truth * ends, label="truth", **TRUTH)
        axis.set(title=f"{name}\nslope {slopes[name]:.2f}", xlabel="condition c", xlim=(-3.5, 3.5))
    axes[0].set(ylabel="sample of x", ylim=(-9, 9))
    narrow = int(np.argmin([x.std() for x, _ in groups.values()]))  # where a legend hides no samples
    axes[narrow].legend(loc="lower right", fontsize="small", title=f"truth: slope {truth:.2f}")
    return figure


def metrics_by_row(
    table: pd.DataFrame, titles: Mapping[str, str], ideal: str, names: Sequence[str], log: Sequence[str] = ()
) -> Figure:
    """Metrics with intervals, one panel per metric and one line per row; a dashed line at the row ``ideal``.

    Args:
        table: columns row, metric, value, low, high.
        titles: metric -> title of its panel.
        ideal: reference row; no dashed line if the table lacks it.
        names: rows to show, from top to bottom.
        log: metrics with a logarithmic axis.
    """
    figure, axes = row(len(titles), 3.2 + 1.5 / len(titles), 0.42 * len(names) + 1.2, sharey=True)
    for axis, (metric, title) in zip(axes, titles.items(), strict=True):
        part = table[table["metric"] == metric].set_index("row")
        if ideal in part.index:
            axis.axvline(part.loc[ideal, "value"], **TRUTH)
        part = part.reindex(list(names))
        error = [part["value"] - part["low"], part["high"] - part["value"]]
        axis.errorbar(part["value"], range(len(names)), xerr=error, fmt="o", capsize=3)
        axis.set(title=title, xscale="log" if metric in log else "linear")
        axis.set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    return figure


def luck_of_the_mask(share: np.ndarray, error: np.ndarray, xlabel: str, ylabel: str) -> Figure:
    """Validation error against the share of available samples in the mask, one point per epoch, with a fitted line."""
    figure, axis = plt.subplots(figsize=(5.5, 3.6))
    line = {"fit_reg": np.ptp(share) > 0, "ci": None, "truncate": True, "line_kws": {"color": BROWN, "lw": 1.8}}
    sns.regplot(x=share, y=error, ax=axis, scatter_kws={"s": 45, "alpha": 0.5}, **line)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    return figure


def quality_against_calls(
    table: pd.DataFrame,
    titles: Mapping[str, str],
    reference: Mapping[str, float],
    *,
    bands: Mapping[str, tuple[float, float]] | None = None,
    limits: Mapping[str, tuple[float, float]] | None = None,
    log: bool = False,
) -> Figure:
    """Quality against calls of the denoiser, one panel per metric and one line per sampler.

    Args:
        table: columns sampler, calls, metric, value, and low and high where there are intervals.
        titles: metric -> title of its panel.
        reference: metric -> value of a dashed line: the ideal, or the noise of the measurement.
        bands: metric -> lower and upper end of a band around the dashed line.
        limits: metric -> axis limits, if outliers would compress the rest.
        log: logarithmic value axis.
    """
    figure, axes = row(len(titles), 4.4, 3.6)
    table = table.reindex(columns=["sampler", "calls", "metric", "value", "low", "high"])
    ticks = [c for c in (5, 10, 20, 50, 100, 200) if table["calls"].min() <= c <= table["calls"].max()]
    for axis, (metric, title) in zip(axes, titles.items(), strict=True):
        part = table[table["metric"] == metric].sort_values("calls", kind="stable")
        for sampler, marker in zip(table["sampler"].unique(), MARKERS, strict=False):
            line = part[part["sampler"] == sampler]
            error = [line["value"] - line["low"], line["high"] - line["value"]] if line["low"].notna().any() else None
            axis.errorbar(line["calls"], line["value"], yerr=error, marker=marker, ms=5, capsize=2, label=sampler)
        if metric in reference:
            axis.axhline(reference[metric], **TRUTH)
        if metric in (bands or {}):
            axis.axhspan(*bands[metric], color=SILVER, alpha=0.25, lw=0)
        axis.set(xscale="log", yscale="log" if log else "linear", xlabel="calls of the denoiser", title=title)
        axis.set(xticks=ticks, ylim=(limits or {}).get(metric))
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.xaxis.set_minor_locator(plt.NullLocator())
    axes[-1].legend(fontsize="small", **BESIDE)
    return figure
