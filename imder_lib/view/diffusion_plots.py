"""Figures of the diffusion notebooks: missing rates, the Gaussian pair, sample quality, network calls."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from imder_lib.view.style import BROWN, MARKERS, TRUTH


def realised_rates(table: pd.DataFrame) -> Figure:
    """Realised against nominal missing rate, a line a split; columns split, nominal, realised."""
    figure, axis = plt.subplots(figsize=(6.4, 4))
    axis.plot([0, 0.7], [0, 0.7], label="as named", **TRUTH)
    for (split, part), marker in zip(table.groupby("split", sort=False), MARKERS, strict=False):
        axis.plot(part["nominal"], part["realised"], marker=marker, ms=5, label=split)
    axis.set(xlabel="nominal missing rate", ylabel="realised missing rate")
    axis.legend()
    return figure


def denoiser_weights(sigma: np.ndarray, weights: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """The weights a of x_t and b of the condition in the best denoiser against sigma, a line a training rule."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    for axis, i, title in zip(axes, (0, 1), ("a, the weight of $x_t$", "b, the weight of the condition"), strict=True):
        for (name, pair), style in zip(weights.items(), ("-", "--", "-."), strict=False):
            axis.plot(sigma, pair[i], style, lw=2, label=name)
        axis.axhline(0, color="black", lw=0.8)
        axis.set(xscale="log", xlabel="noise level sigma", title=title)
    axes[1].legend(title="condition in training")
    return figure


def pair_scatter(
    groups: Mapping[str, tuple[np.ndarray, np.ndarray]], slopes: Mapping[str, float], truth: float
) -> Figure:
    """Samples x (N,) against their conditions c (N,), one panel a group, with its slope and the truth's."""
    figure, axes = plt.subplots(1, len(groups), figsize=(2.9 * len(groups), 3.4), sharex=True, sharey=True)
    ends = np.array([-3.0, 3.0])
    for axis, (name, (x, c)) in zip(np.atleast_1d(axes), groups.items(), strict=True):
        axis.scatter(c, x, s=5, alpha=0.3, lw=0)
        axis.plot(ends, slopes[name] * ends, color=BROWN, lw=2, label="sampled")
        axis.plot(ends, truth * ends, label="truth", **TRUTH)
        axis.set(title=f"{name}\nslope {slopes[name]:.2f}", xlabel="condition c", xlim=(-3.5, 3.5))
    np.atleast_1d(axes)[0].set(ylabel="sample of x", ylim=(-9, 9))
    calm = int(np.argmin([x.std() for x, _ in groups.values()]))  # where a legend hides no samples
    np.atleast_1d(axes)[calm].legend(loc="lower right", fontsize="small", title=f"truth: slope {truth:.2f}")
    return figure


def metrics_by_row(
    table: pd.DataFrame, titles: Mapping[str, str], ideal: str, names: Sequence[str], log: Sequence[str] = ()
) -> Figure:
    """Metrics with their intervals, one panel a metric and one line a row; a dashed line at the row ``ideal``.

    Args:
        table: columns row, metric, value, low, high.
        titles: metric -> title of its panel.
        ideal: the row that the others are read against; no dashed line where the table lacks it.
        names: the rows to show, from top to bottom.
        log: metrics on a logarithmic axis.
    """
    size = (3.2 * len(titles) + 1.5, 0.42 * len(names) + 1.2)
    figure, axes = plt.subplots(1, len(titles), figsize=size, sharey=True, squeeze=False)
    for axis, (metric, title) in zip(axes[0], titles.items(), strict=True):
        part = table[table["metric"] == metric].set_index("row")
        if ideal in part.index:
            axis.axvline(part.loc[ideal, "value"], **TRUTH)
        part = part.reindex(list(names))
        error = [part["value"] - part["low"], part["high"] - part["value"]]
        axis.errorbar(part["value"], range(len(names)), xerr=error, fmt="o", capsize=3)
        axis.set(title=title, yticks=range(len(names)), xscale="log" if metric in log else "linear")
        axis.set_yticklabels(names)
    axes[0][0].invert_yaxis()
    return figure


def luck_of_the_mask(share: np.ndarray, error: np.ndarray, xlabel: str, ylabel: str) -> Figure:
    """One point an epoch: how often something was available against a score, with the least-squares line."""
    figure, axis = plt.subplots(figsize=(5.5, 3.6))
    axis.scatter(share, error, s=45, alpha=0.5)
    ends = np.array([share.min(), share.max()])
    if ends[1] > ends[0]:
        axis.plot(ends, np.polyval(np.polyfit(share, error, 1), ends), color=BROWN)
    axis.set(xlabel=xlabel, ylabel=ylabel)
    return figure


def quality_against_calls(
    table: pd.DataFrame,
    titles: Mapping[str, str],
    reference: Mapping[str, float],
    *,
    limits: Mapping[str, tuple[float, float]] | None = None,
    log: bool = False,
) -> Figure:
    """Quality against calls of the denoiser, one panel a metric and one line a sampler.

    Args:
        table: columns sampler, calls, metric, value, low, high (low and high may be NaN).
        titles: metric -> title of its panel.
        reference: metric -> where a dashed line goes: the ideal, or the noise of the measurement.
        limits: metric -> ends of its axis, where a few points would hide the rest.
        log: values on a logarithmic axis too.
    """
    figure, axes = plt.subplots(1, len(titles), figsize=(4.4 * len(titles), 3.6), squeeze=False)
    for axis, (metric, title) in zip(axes[0], titles.items(), strict=True):
        part = table[table["metric"] == metric]
        for (sampler, line), marker in zip(part.groupby("sampler", sort=False), MARKERS, strict=False):
            line = line.sort_values("calls")
            error = [line["value"] - line["low"], line["high"] - line["value"]]
            axis.errorbar(line["calls"], line["value"], yerr=error, marker=marker, ms=5, capsize=2, label=sampler)
        if metric in reference:
            axis.axhline(reference[metric], **TRUTH)
        ticks = [c for c in (5, 10, 20, 50, 100, 200) if table["calls"].min() <= c <= table["calls"].max()]
        axis.set(xscale="log", xlabel="calls of the denoiser", title=title, xticks=ticks)
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.xaxis.set_minor_locator(plt.NullLocator())
        if log:
            axis.set_yscale("log")
        if metric in (limits or {}):
            axis.set_ylim(limits[metric])
    axes[0][0].legend(fontsize="small")
    return figure
