"""Figures: pure functions from arrays and tables to a matplotlib Figure."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from imder_lib.view.style import BLUE, BROWN, GOLD, MARKERS, METHODS, METRIC_NAMES, SILVER, SKY, TRUTH


def label_histogram(labels: Mapping[str, np.ndarray]) -> Figure:
    """Distribution of the label in each split."""
    figure, axis = plt.subplots(figsize=(6, 3.2))
    for (name, y), style in zip(labels.items(), ("-", "--", ":"), strict=False):
        sns.kdeplot(x=y, ax=axis, label=f"{name} (N = {len(y)})", linestyle=style, cut=0, warn_singular=False)
    axis.set(xlabel="label", ylabel="density")
    axis.legend()
    return figure


def feature_samples(features: Mapping[str, np.ndarray], title: str) -> Figure:
    """One sample of each modality as an image: (T, D_m) each."""
    figure, axes = plt.subplots(1, len(features), figsize=(4 * len(features), 3))
    for axis, (m, x) in zip(axes, features.items(), strict=True):
        limit = np.abs(x).max() or 1.0
        image = axis.imshow(x.T, aspect="auto", cmap="vlag", vmin=-limit, vmax=limit, interpolation="nearest")
        axis.set(title=m, xlabel="time step", ylabel="feature")
        axis.grid(False)
        figure.colorbar(image, ax=axis, shrink=0.8)
    figure.suptitle(title, parse_math=False)  # ids may hold $
    return figure


def availability_map(available: Mapping[str, np.ndarray], modalities: Sequence[str]) -> Figure:
    """Which modalities (columns) of which samples (rows) are available, one panel a rate; rows are sorted."""
    figure, axes = plt.subplots(1, len(available), figsize=(1.9 * len(available), 3.4), sharey=True)
    for axis, (title, a) in zip(np.atleast_1d(axes), available.items(), strict=True):
        rows = a[np.lexsort(a.T)]
        axis.imshow(rows, aspect="auto", cmap="Greys", vmin=0, vmax=1.4, interpolation="nearest")
        axis.set(title=title, xticks=range(len(modalities)))
        axis.set_xticklabels(modalities, rotation=45, ha="right")
        axis.grid(False)
    np.atleast_1d(axes)[0].set_ylabel("sample (sorted)")
    return figure


def latent_strip(latents: Sequence[np.ndarray], titles: Sequence[str], limit: float | None = None) -> Figure:
    """Latents (D, T) side by side, their deviations above; ``limit``: where the colours end, None: each its own."""
    figure, axes = plt.subplots(1, len(latents), figsize=(2.1 * len(latents), 2.6), sharey=True)
    for axis, x, title in zip(axes, latents, titles, strict=True):
        end = limit or np.abs(x).max() or 1.0
        axis.imshow(x, aspect="auto", cmap="vlag", vmin=-end, vmax=end, interpolation="nearest")
        axis.set(title=f"{title}\nstd {x.std():.2f}", xlabel="time step")
        axis.grid(False)
    axes[0].set_ylabel("latent channel")
    return figure


def compare_latents(groups: Mapping[str, np.ndarray]) -> Figure:
    """Groups of latents (N, D, T): each on the first two principal components of the first group, and all values.

    The first group sets axes and components, and stands grey behind each of the others; how many of their points
    fall outside the frame is said above.
    """
    flat = {name: x.reshape(len(x), -1) for name, x in groups.items()}
    first = next(iter(flat.values()))
    components = PCA(2).fit(first)
    figure, axes = plt.subplots(1, len(flat), figsize=(3.7 * len(flat), 3.7), squeeze=False)
    *clouds, right = axes[0]
    reach = 3 * components.transform(first).std(axis=0)
    span = 5 * first.std()
    for axis, (name, x), colour in zip(clouds, list(flat.items())[1:], (BROWN, BLUE, GOLD), strict=False):
        xy = components.transform(x)
        outside = (np.abs(xy) > reach).any(axis=1).mean()
        axis.scatter(*components.transform(first).T, s=14, color=SILVER, alpha=0.5, label=next(iter(flat)))
        axis.scatter(*xy.T, s=14, color=colour, alpha=0.6, marker="^", label=name)
        axis.set(
            xlim=(-reach[0], reach[0]), ylim=(-reach[1], 1.35 * reach[1]), title=f"{outside:.0%} outside the frame"
        )
        axis.set(xlabel="first principal component of true", ylabel="second")
        axis.legend(loc="upper center", ncols=2, fontsize="small")
    for (name, x), colour, line in zip(flat.items(), (SILVER, BROWN, BLUE, GOLD), ("-", "--", "-", ":"), strict=False):
        values = x[np.abs(x) <= span]
        values = values[:: max(1, len(values) // 20000)]
        sns.kdeplot(x=values, ax=right, color=colour, linestyle=line, label=f"{name} (std {x.std():.2f})")
    right.set(xlabel="latent value", ylabel="density", title="all values", xlim=(-span, span))
    right.set_ylim(top=1.5 * right.get_ylim()[1])  # room for the legend
    right.legend(fontsize="small")
    return figure


def tsne_by_modality(groups: Mapping[str, tuple[np.ndarray, np.ndarray]], seed: int = 0) -> Figure:
    """t-SNE of true and recovered latents, modality -> two arrays (N, D, T); one colour and marker a modality."""
    flat = np.concatenate([x.reshape(len(x), -1) for pair in groups.values() for x in pair])
    flat = PCA(min(30, *flat.shape), random_state=seed).fit_transform(flat)
    perplexity = min(30.0, (len(flat) - 1) / 3)
    xy = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(flat)
    figure, axis = plt.subplots(figsize=(6.4, 5))
    start = 0
    for (m, pair), colour, marker in zip(groups.items(), (BLUE, BROWN, SKY, GOLD), MARKERS, strict=False):
        for x, kind in zip(pair, ("true", "recovered"), strict=True):
            part, start = xy[start : start + len(x)], start + len(x)
            axis.scatter(*part.T, s=22, marker=marker, edgecolors=colour, linewidths=1, label=f"{m}, {kind}",
                         facecolors=colour if kind == "true" else "none", alpha=0.8)  # fmt: skip
    axis.set(xticks=[], yticks=[], xlabel="t-SNE: only who is near whom means something")
    axis.grid(False)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def confusion_map(counts: np.ndarray) -> Figure:
    """Counts (C, C), rows true classes, columns predicted ones; the diagonal is right."""
    figure, axis = plt.subplots(figsize=(5.2, 4.6))
    sns.heatmap(counts, annot=True, fmt="d", cmap="Blues", cbar=False, linewidths=0.5, square=True, ax=axis)
    axis.set(xlabel="predicted class", ylabel="true class")
    return figure


def draws_band(
    draws: np.ndarray, truth: np.ndarray, exact: Sequence[np.ndarray] | None, titles: Sequence[str]
) -> Figure:
    """Draws of some latent channels over time, (K, C, T), with the truth (C, T).

    ``exact``: mean and the two ends of the central 95 %, (C, T) each.
    """
    figure, axes = plt.subplots(1, len(titles), figsize=(4.2 * len(titles), 3.2), squeeze=False)
    t = np.arange(draws.shape[2])
    for c, (axis, title) in enumerate(zip(axes[0], titles, strict=True)):
        if exact is not None:
            mean, low, high = (x[c] for x in exact)
            axis.fill_between(t, low, high, color=SILVER, alpha=0.3, lw=0, label="exact 95 %")
            axis.plot(t, mean, label="exact mean", **TRUTH)
        axis.plot(t, draws[:3, c].T, color=SKY, lw=0.8)
        axis.plot([], [], color=SKY, lw=0.8, label="three draws")
        axis.plot(t, draws[:, c].mean(0), color=BLUE, lw=2, label=f"mean of {len(draws)} draws")
        axis.plot(t, truth[c], color=BROWN, lw=1.2, label="truth")
        axis.set(title=title, xlabel="time step")
    axes[0][0].set_ylabel("latent (standardised)")
    axes[0][-1].legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small")
    return figure


def training_curves(history: pd.DataFrame) -> Figure:
    """Training and validation loss of each stage; a ring around the epoch that is kept, 0 for the start."""
    stages = list(history["stage"].unique())
    figure, axes = plt.subplots(1, len(stages), figsize=(4.2 * len(stages), 3.2), squeeze=False)
    for axis, stage in zip(axes[0], stages, strict=True):
        part = history[history["stage"] == stage]
        for column, style in (("train", "o-"), ("valid", "s--")):
            axis.plot(part["epoch"], part[column], style, label=column, markersize=4)
        kept = part[part["kept"]].iloc[-1]
        axis.plot(kept["epoch"], kept["valid"], "o", ms=11, mfc="none", mec=BROWN, mew=1.5, label="kept")
        axis.set(title=f"stage {stage}", xlabel="epoch", ylabel="loss")
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0][0].legend()
    return figure


def metric_against_rate(table: pd.DataFrame, metric: str) -> Figure:
    """A metric against the realised missing rate, a line a method; the band is the range over seeds."""
    figure, axis = plt.subplots(figsize=(6.4, 4))
    for method, part in table.groupby("method", sort=False):
        line = part.groupby("realised")[metric]
        label, colour, marker, style = METHODS[method]
        axis.plot(line.mean().index, line.mean(), style, marker=marker, color=colour, label=label)
        axis.fill_between(line.min().index, line.min(), line.max(), color=colour, alpha=0.15, lw=0)
    axis.set(xlabel="realised missing rate (share of missing modalities)", ylabel=METRIC_NAMES[metric])
    axis.legend()
    return figure


def metric_by_pattern(table: pd.DataFrame, metric: str) -> Figure:
    """A metric for each pattern of available modalities, a marker a method."""
    figure, axis = plt.subplots(figsize=(7.5, 3.8))
    cases = list(table["case"].unique())
    shift = dict(zip(table["method"].unique(), np.linspace(-0.2, 0.2, table["method"].nunique()), strict=True))
    for method, part in table.groupby("method", sort=False):
        values = part.groupby("case")[metric]
        x = [cases.index(c) + shift[method] for c in values.mean().index]
        error = [values.mean() - values.min(), values.max() - values.mean()]
        label, colour, marker, _ = METHODS[method]
        axis.errorbar(x, values.mean(), yerr=error, fmt=marker, ms=6.5, color=colour, label=label, lw=1.5, alpha=0.85)
    axis.set(ylabel=METRIC_NAMES[metric], xticks=range(len(cases)))
    axis.set_xticklabels([c.replace("+", "\n+ ") for c in cases])
    axis.set_xlabel("available modalities")
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
