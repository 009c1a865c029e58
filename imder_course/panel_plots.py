"""Figures of the explorer panels, optimised for drawing time."""

import base64
import gc
import io
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from imder_course.style import BLUE, BROWN, METHODS, METRIC_NAMES, SILVER, TRUTH, legend_above, method_lines, picture

DPI = 80
PRECISION = 0.03  # lowest noise level on a logarithmic axis


def draw_png(make: Callable[[], Figure]) -> str:
    """Draw a figure to a PNG in base64.

    Garbage collection is disabled meanwhile, because a full collection takes longer than the drawing. The objects of
    the figure are then collected in the youngest generation, so full collections stay rare.
    """
    buffer = io.BytesIO()
    gc.disable()
    try:
        figure = make()
        figure.set_dpi(DPI)
        FigureCanvasAgg(figure).print_png(buffer)  # savefig draws twice
        del figure
        gc.collect(0)
    finally:
        gc.enable()
    return base64.b64encode(buffer.getvalue()).decode()


def recovery_figure(pictures: Mapping[str, np.ndarray]) -> tuple[Figure, list[Axes]]:
    """Figure with pictures, title -> (H, W), above three empty axes; the first picture determines the grey scale."""
    figure = Figure(figsize=(10, 5.4), layout="none")
    upper = figure.add_gridspec(1, len(pictures), top=0.93, bottom=0.56, left=0.02, right=0.98, wspace=0.08)
    lower = figure.add_gridspec(1, 3, top=0.42, bottom=0.11, left=0.06, right=0.98, wspace=0.22)
    limit = max(1.0, float(np.nanmax(np.abs(next(iter(pictures.values()))))))
    for place, (title, x) in zip(upper, pictures.items(), strict=True):
        picture(figure.add_subplot(place), x, title, limit, "auto")
    return figure, [figure.add_subplot(place) for place in lower]


def draw_densities(axis: Axes, true: np.ndarray, draws: np.ndarray, sigma: float) -> None:
    """Draw the densities of missing latents: of the true ones, and of the draws at noise level sigma."""
    bins = np.linspace(-4, 4, 41)
    for x, name, style in ((true, "true", TRUTH), (draws, f"draws at {sigma:.2g}", {"color": BLUE, "lw": 2})):
        axis.stairs(np.histogram(np.clip(x, -4, 4), bins, density=True)[0], bins, label=name, **style)
    axis.set(xlabel="latent value (standardised)", title="density of the missing latents", yticks=[])
    legend_above(axis, 0.35, loc="upper right")


def draw_trajectories(axis: Axes, levels: np.ndarray, values: np.ndarray, true: float, sigma: float) -> None:
    """Draw the denoised values (S, K) of one latent entry over noise levels (S,), one line per draw; mark sigma."""
    axis.plot(np.maximum(levels, PRECISION / 2), values, color=BLUE, lw=1, alpha=0.8)
    axis.axhline(true, label="true", **TRUTH)
    axis.axvline(max(sigma, PRECISION / 2), color=SILVER, lw=3, alpha=0.5, label="level shown")
    axis.set(xscale="log", xlabel="noise level sigma", title="denoised value of one entry")
    axis.minorticks_off()
    axis.invert_xaxis()
    legend_above(axis, 0.4, loc="upper right", ncols=2, fontsize="small")


def draw_numbers(axis: Axes, prediction: np.ndarray, label: float) -> None:
    """Draw the predictions (K,) of the draws, their mean and standard deviation, and the true label."""
    mean, spread = prediction.mean(), prediction.std(ddof=1) if len(prediction) > 1 else 0.0
    axis.axvspan(mean - spread, mean + spread, color=BLUE, alpha=0.15, lw=0)
    axis.plot(prediction, np.linspace(0.2, 0.8, len(prediction)), "o", color=BLUE)
    axis.axvline(mean, color=BLUE, lw=2)
    axis.axvline(label, **TRUTH)
    reach = max(3.0, np.abs(prediction).max() + 0.2, abs(label) + 0.2)
    title = f"predicted {mean:.2f} ± {spread:.2f}, true {label:.2f}"
    axis.set(xlim=(-reach, reach), ylim=(0, 1), yticks=[], xlabel="label; a dot for each draw", title=title)


def draw_classes(axis: Axes, probability: np.ndarray, label: float) -> None:
    """Draw the class probabilities (K, C) of the draws and their means, with the true class in brown."""
    mean, classes = probability.mean(axis=0), np.arange(probability.shape[1])
    axis.bar(classes, mean, color=np.where(classes == label, BROWN, BLUE), alpha=0.5)
    axis.plot(classes, probability.T, "o", ms=3, color=BLUE)
    title = f"predicted {mean.argmax()} ({mean.max():.0%}), true {label:g}"
    axis.set(xticks=classes, ylim=(0, 1.05), xlabel="class; a dot for each draw", title=title)


def missing_rate_view(table: pd.DataFrame, metric: str, rate: float) -> Figure:
    """A metric against the missing rate, and a bar chart of the methods at one nominal rate.

    Args:
        table: rows of evaluate under protocol "random".
        metric: one of its columns.
        rate: one of its nominal rates.
    """
    figure = Figure(figsize=(10, 3.8), layout="none")
    lines, bars = figure.subplots(1, 2, width_ratios=(1.5, 1))
    figure.subplots_adjust(left=0.08, right=0.98, top=0.91, bottom=0.15, wspace=0.5)
    method_lines(lines, table, metric)
    at = table[table["rate"] == rate]
    lines.axvline(at["realised"].mean(), color=SILVER, lw=6, alpha=0.4)
    means = at.groupby("method")[metric].mean().sort_values()
    shown = [METHODS[method] for method in means.index]
    bar = bars.barh([m.label for m in shown], means, color=[m.colour for m in shown])
    bars.bar_label(bar, fmt=" {:.3f}", fontsize="small")
    bars.set(title=f"at nominal rate {rate:g}", xlabel=METRIC_NAMES[metric])
    bars.margins(x=0.18)
    bars.set_ylim(-0.6, max(len(shown), 4) - 0.4)  # limits the height of the bars
    return figure
