"""Figures of data, latents, digits, training and metrics: pure functions that return a matplotlib Figure."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from imder_course.style import (
    BESIDE,
    BLUE,
    BROWN,
    GOLD,
    MARKERS,
    METHODS,
    METRIC_NAMES,
    SILVER,
    SKY,
    TRUTH,
    image,
    legend_above,
    method_lines,
    picture,
    row,
)

RIGHT, WRONG = "#00664B", "#A03A00"  # they also differ in lightness; wrong answers have a cross


def label_histogram(labels: Mapping[str, np.ndarray]) -> Figure:
    """Densities of labels, name -> (N,), one line each."""
    figure, axis = plt.subplots(figsize=(6, 3.2))
    for (name, y), line in zip(labels.items(), ("-", "--", ":"), strict=False):
        sns.kdeplot(x=y, ax=axis, label=f"{name} (N = {len(y)})", linestyle=line, cut=0, warn_singular=False)
    axis.set(xlabel="label", ylabel="density")
    axis.legend()
    return figure


def feature_samples(features: Mapping[str, np.ndarray], title: str) -> Figure:
    """One sample of each modality as an image: (T, D_m) each."""
    figure, axes = row(len(features), 4, 3)
    for axis, (m, x) in zip(axes, features.items(), strict=True):
        figure.colorbar(image(axis, x.T), ax=axis, shrink=0.8)
        axis.set(title=m, xlabel="time step", ylabel="feature")
    figure.suptitle(title, parse_math=False)  # ids may hold $
    return figure


def availability_map(available: Mapping[str, np.ndarray], modalities: Sequence[str]) -> Figure:
    """Available modalities (columns) of samples (rows, sorted), one panel per rate."""
    figure, axes = row(len(available), 1.9, 3.4, sharey=True)
    for axis, (title, a) in zip(axes, available.items(), strict=True):
        axis.imshow(a[np.lexsort(a.T)], aspect="auto", cmap="Greys", vmin=0, vmax=1.4, interpolation="nearest")
        axis.set_title(title)
        axis.set_xticks(range(len(modalities)), modalities, rotation=45, ha="right")
        axis.grid(False)
    axes[0].set_ylabel("sample (sorted)")
    return figure


def latent_strip(latents: Sequence[np.ndarray], titles: Sequence[str], limit: float | None = None) -> Figure:
    """Latents (D, T) side by side, with standard deviations; ``limit``: end of the colour scale, None: one each."""
    figure, axes = row(len(latents), 2.1, 2.6, sharey=True)
    for axis, x, title in zip(axes, latents, titles, strict=True):
        image(axis, x, limit)
        axis.set(title=f"{title}\nstd {x.std():.2f}", xlabel="time step")
    axes[0].set_ylabel("latent channel")
    return figure


def compare_latents(groups: Mapping[str, np.ndarray]) -> Figure:
    """Groups of latents (N, D, T) on the first two principal components of the first group, and densities of values.

    The first group determines the components and axis limits, and is grey in all panels. The title of a panel gives the
    share of points outside its limits.
    """
    from sklearn.decomposition import PCA  # here and not above: slow to import, and few figures need it

    flat = {name: x.reshape(len(x), -1) for name, x in groups.items()}
    (first, truth), *others = flat.items()
    components = PCA(2, random_state=0).fit(truth)  # of many values, scikit-learn estimates them by random projections
    behind = components.transform(truth)
    reach, span = 3 * behind.std(axis=0), 5 * truth.std()
    figure, (*clouds, right) = row(len(flat), 3.7, 3.7)
    for axis, (name, x), colour in zip(clouds, others, (BROWN, BLUE, GOLD), strict=False):
        points = components.transform(x)
        axis.scatter(*behind.T, s=14, color=SILVER, alpha=0.5, label=first)
        axis.scatter(*points.T, s=14, color=colour, alpha=0.6, marker="^", label=name)
        outside = (np.abs(points) > reach).any(axis=1).mean()
        axis.set(xlabel="first principal component of true", ylabel="second", title=f"{outside:.0%} outside the frame")
        axis.set(xlim=(-reach[0], reach[0]), ylim=(-reach[1], reach[1]))
        legend_above(axis, 0.175, loc="upper center", ncols=2)
    for (name, x), colour, line in zip(flat.items(), (SILVER, BROWN, BLUE, GOLD), ("-", "--", "-", ":"), strict=False):
        values = x[np.abs(x) <= span]
        values = values[:: max(1, len(values) // 20000)]
        sns.kdeplot(x=values, ax=right, color=colour, linestyle=line, label=f"{name} (std {x.std():.2f})")
    right.set(xlabel="latent value", ylabel="density", title="all values", xlim=(-span, span))
    legend_above(right, 0.5)
    return figure


def tsne_by_modality(groups: Mapping[str, tuple[np.ndarray, np.ndarray]], seed: int = 0) -> Figure:
    """t-SNE of true and recovered latents, modality -> two arrays (N, D, T); one colour and marker per modality."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    flat = np.concatenate([x.reshape(len(x), -1) for pair in groups.values() for x in pair])
    flat = PCA(min(30, *flat.shape), random_state=seed).fit_transform(flat)
    points = TSNE(perplexity=min(30.0, (len(flat) - 1) / 3), init="pca", random_state=seed).fit_transform(flat)
    figure, axis = plt.subplots(figsize=(6.4, 5))
    for (m, pair), colour, marker in zip(groups.items(), (BLUE, BROWN, SKY, GOLD), MARKERS, strict=False):
        for x, kind, face in zip(pair, ("true", "recovered"), (colour, "none"), strict=True):
            part, points = points[: len(x)], points[len(x) :]
            look = {"marker": marker, "edgecolors": colour, "facecolors": face}
            axis.scatter(*part.T, s=22, linewidths=1, alpha=0.8, label=f"{m}, {kind}", **look)
    axis.set(xticks=[], yticks=[], xlabel="t-SNE: only neighbourhoods are meaningful")
    axis.legend(**BESIDE)
    return figure


def digit_strip(images: Sequence[np.ndarray], titles: Sequence[str]) -> Figure:
    """Images (8, 8) side by side, from -1 (white) to 1 (black); NaN is blue."""
    figure, axes = row(len(images), 1.5, 1.9)
    for axis, x, title in zip(axes, images, titles, strict=True):
        picture(axis, x, title)
    return figure


def completions(
    truth: np.ndarray, given: np.ndarray, draws: np.ndarray, answers: np.ndarray, together: np.ndarray, labels: Sequence
) -> Figure:
    """Digits: the true image, its available part, draws and their mean, with predicted classes as titles.

    Args:
        truth, given: (N, 8, 8), NaN where missing.
        draws: (K, N, 8, 8).
        answers: integers (K, N), the predicted class of each draw.
        together: integers (N,), the predicted class from all draws, shown with their mean.
        labels: N true classes.
    """
    K, N = answers.shape
    figure, axes = plt.subplots(N, K + 3, figsize=(1.05 * (K + 3), 1.3 * N), squeeze=False)
    for n, (first, second, *rest) in enumerate(axes):
        picture(first, truth[n], f"true {labels[n]}")
        picture(second, given[n], "given")
        images, classes = [*draws[:, n], draws[:, n].mean(0)], [*answers[:, n], together[n]]
        for axis, x, answer in zip(rest, images, classes, strict=True):
            right = answer == labels[n]
            title = f"{'all: ' if axis is rest[-1] else ''}{answer}{'' if right else ' ×'}"
            picture(axis, x, title, color=RIGHT if right else WRONG)
    return figure


def confusion_map(counts: np.ndarray) -> Figure:
    """Confusion matrix (C, C), rows true classes, columns predicted ones."""
    figure, axis = plt.subplots(figsize=(5.2, 4.6))
    sns.heatmap(counts, annot=True, fmt="d", cmap="Blues", cbar=False, linewidths=0.5, square=True, ax=axis)
    axis.set(xlabel="predicted class", ylabel="true class")
    return figure


def draws_band(
    draws: np.ndarray, truth: np.ndarray, exact: Sequence[np.ndarray] | None, titles: Sequence[str]
) -> Figure:
    """Draws (K, C, T) of latent channels over time, with the truth (C, T).

    ``exact``: mean and both ends of the central 95 % interval of the exact posterior, (C, T) each.
    """
    figure, axes = row(len(titles), 4.2, 3.2)
    for c, (axis, title) in enumerate(zip(axes, titles, strict=True)):
        if exact is not None:
            mean, low, high = (x[c] for x in exact)
            axis.fill_between(range(len(mean)), low, high, color=SILVER, alpha=0.3, lw=0, label="exact 95 %")
            axis.plot(mean, label="exact mean", **TRUTH)
        axis.plot(draws[0, c], color=SKY, lw=0.8, label="three draws")
        axis.plot(draws[1:3, c].T, color=SKY, lw=0.8)
        axis.plot(draws[:, c].mean(0), color=BLUE, lw=2, label=f"mean of {len(draws)} draws")
        axis.plot(truth[c], color=BROWN, lw=1.2, label="truth")
        axis.set(title=title, xlabel="time step")
    axes[0].set_ylabel("latent (standardised)")
    axes[-1].legend(**BESIDE)
    return figure


def training_curves(history: pd.DataFrame) -> Figure:
    """Training and validation loss of each stage; a ring marks the epoch whose weights are kept (0: initial)."""
    stages = history["stage"].unique()
    figure, axes = row(len(stages), 4.2, 3.2)
    for axis, stage in zip(axes, stages, strict=True):
        part = history[history["stage"] == stage]
        for column, line in (("train", "o-"), ("valid", "s--")):
            axis.plot(part["epoch"], part[column], line, label=column, markersize=4)
        kept = part[part["kept"]].iloc[-1]
        axis.plot(kept["epoch"], kept["valid"], "o", ms=11, mfc="none", mec=BROWN, mew=1.5, label="kept")
        axis.set(title=f"stage {stage}", xlabel="epoch", ylabel="loss")
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend()
    return figure


def metric_against_rate(table: pd.DataFrame, metric: str) -> Figure:
    """A metric against the realised missing rate, one line per method; the band is the range over seeds."""
    figure, axis = plt.subplots(figsize=(7.5, 3.8))
    method_lines(axis, table, metric)
    axis.legend(**BESIDE)
    return figure


def metric_by_pattern(table: pd.DataFrame, metric: str) -> Figure:
    """A metric for each pattern of available modalities, one marker per method; bars are the range over seeds."""
    figure, axis = plt.subplots(figsize=(7.5, 3.8))
    looks = [METHODS[method] for method in table["method"].unique()]
    named = table.assign(method=table["method"].map({m: look.label for m, look in METHODS.items()}))
    style = {"palette": [look.colour for look in looks], "markers": [look.marker for look in looks]}
    style |= {"dodge": 0.4, "linestyle": "none", "errorbar": ("pi", 100), "ms": 6.5, "lw": 1.5, "alpha": 0.85}
    sns.pointplot(named, x="case", y=metric, hue="method", ax=axis, **style)
    axis.set(xlabel="available modalities", ylabel=METRIC_NAMES[metric])
    axis.set_xticks(axis.get_xticks(), [t.get_text().replace("+", "\n+ ") for t in axis.get_xticklabels()])
    axis.legend(**BESIDE)
    return figure
