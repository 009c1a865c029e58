"""The figures beneath the explorer panels: fast to draw, nothing computed here."""

import base64
import gc
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from imder_lib.view.style import BLUE, BROWN, METHODS, METRIC_NAMES, SILVER, TRUTH

DPI = 80
PRECISION = 0.03  # the lowest noise level of a trajectory: the log axis ends here


def draw_png(make: Callable[[], Figure]) -> str:
    """A figure as a PNG in base64.

    A full garbage collection on the way would take longer than all the rest: it waits, and what the figure leaves,
    thousands of objects in cycles, goes at once, while it is young.
    """
    collects, buffer = gc.isenabled(), io.BytesIO()
    gc.disable()
    try:
        figure = make()
        figure.set_dpi(DPI)
        FigureCanvasAgg(figure).print_png(buffer)  # savefig would draw twice
    finally:
        figure = None
        if collects:
            gc.enable()
        gc.collect(0)
    return base64.b64encode(buffer.getvalue()).decode()


@dataclass
class Recovery:
    """What the recovery panel shows.

    Attributes:
        pictures: title -> (H, W), NaN where nothing is given; the first sets the grey scale.
        sigma: the noise level looked at.
        values: name -> numbers of the missing modality (standardised): the truth, and the draws at this level.
        levels: (S,) noise levels of the trajectory, falling.
        trajectories: (K, S) the denoised value of one latent entry for each draw.
        entry: the true value of that entry.
        prediction: (K,) numbers, or (K, C) probabilities of classes, one for each draw.
        label: the true label or class.
    """

    pictures: Mapping[str, np.ndarray]
    sigma: float
    values: Mapping[str, np.ndarray]
    levels: np.ndarray
    trajectories: np.ndarray
    entry: float
    prediction: np.ndarray
    label: float


def recovery_view(seen: Recovery) -> Figure:
    """Pictures above; below densities, the trajectory of every draw, and what each draw is predicted as."""
    figure = Figure(figsize=(10, 5.4), layout="none")
    upper = figure.add_gridspec(1, len(seen.pictures), top=0.93, bottom=0.56, left=0.02, right=0.98, wspace=0.08)
    lower = figure.add_gridspec(1, 3, top=0.42, bottom=0.11, left=0.06, right=0.98, wspace=0.22)
    limit = max(1.0, float(np.nanmax(np.abs(next(iter(seen.pictures.values()))))))
    for place, (title, x) in zip(upper, seen.pictures.items(), strict=True):
        axis = figure.add_subplot(place, facecolor="#CFE3F2", xticks=[], yticks=[])
        axis.imshow(np.ma.masked_invalid(x), cmap="Greys", vmin=-limit, vmax=limit, aspect="auto")
        axis.set_title(title)
    density, trajectory, answer = (figure.add_subplot(place) for place in lower)
    _densities(density, seen.values)
    _trajectories(trajectory, seen)
    (_classes if seen.prediction.ndim == 2 else _numbers)(answer, seen.prediction, seen.label)
    return figure


def _densities(axis: Axes, values: Mapping[str, np.ndarray]) -> None:
    bins = np.linspace(-4, 4, 41)
    for (name, x), style in zip(values.items(), (TRUTH, {"color": BLUE, "lw": 2}), strict=False):
        axis.stairs(np.histogram(np.clip(x, -4, 4), bins, density=True)[0], bins, label=name, **style)
    axis.set(xlabel="latent value (standardised)", title="density of the missing latents", yticks=[])
    axis.set_ylim(top=1.35 * axis.get_ylim()[1])  # room for the legend
    axis.legend(loc="upper right")


def _trajectories(axis: Axes, seen: Recovery) -> None:
    axis.plot(np.maximum(seen.levels, PRECISION / 2), seen.trajectories.T, color=BLUE, lw=1, alpha=0.8)
    axis.axhline(seen.entry, label="true", **TRUTH)
    axis.axvline(max(seen.sigma, PRECISION / 2), color=SILVER, lw=3, alpha=0.5, label="level shown")
    axis.set(xscale="log", xlabel="noise level sigma", title="denoised value of one entry")
    axis.minorticks_off()
    axis.invert_xaxis()
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + 0.4 * (high - low))  # room for the legend
    axis.legend(loc="upper right", ncols=2, fontsize="small")


def _numbers(axis: Axes, prediction: np.ndarray, label: float) -> None:
    spread = prediction.std(ddof=1) if len(prediction) > 1 else 0.0
    axis.axvspan(prediction.mean() - spread, prediction.mean() + spread, color=BLUE, alpha=0.15, lw=0)
    axis.plot(prediction, np.linspace(0.2, 0.8, len(prediction)), "o", color=BLUE)
    axis.axvline(prediction.mean(), color=BLUE, lw=2)
    axis.axvline(label, **TRUTH)
    reach = max(3.0, float(np.abs(prediction).max()) + 0.2, abs(label) + 0.2)
    title = f"predicted {prediction.mean():.2f} ± {spread:.2f}, true {label:.2f}"
    axis.set(xlim=(-reach, reach), ylim=(0, 1), yticks=[], xlabel="label; a dot for each draw", title=title)


def _classes(axis: Axes, probability: np.ndarray, label: float) -> None:
    mean, C = probability.mean(axis=0), probability.shape[1]
    axis.bar(range(C), mean, color=[BROWN if c == label else BLUE for c in range(C)], alpha=0.5)
    axis.plot(np.tile(np.arange(C), len(probability)), probability.ravel(), "o", ms=3, color=BLUE)
    title = f"predicted {mean.argmax()} ({mean.max():.0%}), true {label:g}"
    axis.set(xticks=range(C), ylim=(0, 1.05), xlabel="class; a dot for each draw", title=title)


def missing_rate_view(table: pd.DataFrame, metric: str, methods: Sequence[str], rate: float) -> Figure:
    """A metric against the missing rate, and at one rate the methods side by side.

    Args:
        table: rows of evaluate under protocol "random".
        metric: one of its columns.
        methods: those to show.
        rate: the nominal rate to read off.
    """
    figure = Figure(figsize=(10, 3.8), layout="none")
    line, bar = figure.subplots(1, 2, width_ratios=(1.5, 1))
    figure.subplots_adjust(left=0.08, right=0.98, top=0.91, bottom=0.15, wspace=0.5)
    at = []
    for method in methods:
        mean = table[table["method"] == method].groupby("rate")[[metric, "realised"]].mean()
        label, colour, marker, style = METHODS[method]
        line.plot(mean["realised"], mean[metric], style, marker=marker, color=colour, label=label)
        at.append((label, mean.loc[rate, metric], colour))
    line.axvline(table.loc[table["rate"] == rate, "realised"].mean(), color=SILVER, lw=6, alpha=0.4)
    line.set(xlabel="realised missing rate", ylabel=METRIC_NAMES[metric])
    at.sort(key=lambda row: row[1])
    bar.barh([a[0] for a in at], [a[1] for a in at], color=[a[2] for a in at])
    for i, (_, value, _) in enumerate(at):
        bar.text(value, i, f" {value:.3f}", va="center", fontsize="small")
    bar.set(title=f"at nominal rate {rate:g}", xlabel=METRIC_NAMES[metric])
    bar.margins(x=0.18)
    bar.set_ylim(-0.6, max(len(at), 4) - 0.4)  # a few bars are no broader than many
    return figure
