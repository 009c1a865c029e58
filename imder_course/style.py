"""Style of all figures: style sheet, colour, marker and line of each method, and common drawing functions."""

from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from imder_runs.tables import METHOD_NAMES, METRIC_NAMES

# Distinct for colour-blind readers (CIEDE2000 of any two at least 14); contrast against white at least 3 to 1.
BLUE, GOLD, MAROON, SKY, BROWN = "#2166AC", "#B8860B", "#661100", "#5B8FF9", "#8C510A"
INDIGO, GREY, SILVER, BLACK = "#332288", "#555555", "#8A8A8A", "#000000"
MARKERS = "osD^vP*X"
BESIDE = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}  # legend to the right of the axis


class Method(NamedTuple):
    """Style of a method; methods differ in more than their colour."""

    label: str
    colour: str
    marker: str
    line: str


LOOKS = {
    "bayes": (BLACK, "D", "--"),
    "imder": (BLUE, "o", "-"),
    "released": (BROWN, "X", "-"),
    "network": (INDIGO, "P", "-."),
    "regression": (GOLD, "s", "-"),
    "dropout": (MAROON, "^", "-"),
    "mean": (SKY, "v", "-."),
    "zero": (SILVER, "<", "-."),
    "constant": (GREY, "_", ":"),
}
METHODS = {method: Method(METHOD_NAMES[method], *look) for method, look in LOOKS.items()}
TRUTH = {"color": BLACK, "lw": 1.5, "ls": "--"}


def use_style() -> None:
    """Use the style sheet imder.mplstyle for all later figures."""
    plt.style.use("imder_course.imder")


def row(count: int, width: float, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure with a row of axes (count,), each width x height inches; ``options``: for ``plt.subplots``."""
    figure, axes = plt.subplots(1, count, figsize=(width * count, height), squeeze=False, **options)
    return figure, axes[0]


def image(axis: Axes, x: np.ndarray, limit: float | None = None, **options: Any) -> AxesImage:
    """Draw an array (H, W) in colours from -limit to limit (None: its maximum); ``options``: for ``imshow``."""
    end = limit or np.abs(x).max() or 1.0
    axis.grid(False)
    style = {"aspect": "auto", "cmap": "vlag", "interpolation": "nearest"}
    return axis.imshow(x, vmin=-end, vmax=end, **style | options)


def picture(axis: Axes, x: np.ndarray, title: str, limit: float = 1, aspect: str = "equal", **text: Any) -> None:
    """Draw a picture (H, W) from -limit (white) to limit (black), NaN in blue; ``text``: properties of the title."""
    image(axis, np.ma.masked_invalid(x), limit, cmap="Greys", aspect=aspect)
    axis.set(xticks=[], yticks=[], facecolor="#CFE3F2")
    axis.set_title(title, **text)


def method_lines(axis: Axes, table: pd.DataFrame, metric: str) -> None:
    """Draw a metric against the realised missing rate, one line per method; the band is the range over seeds."""
    for method, part in table.groupby("method", sort=False):
        label, colour, marker, line = METHODS[method]
        rates = part.groupby("rate")
        x, y = rates["realised"].mean(), rates[metric]
        axis.plot(x, y.mean(), line, marker=marker, color=colour, label=label)
        axis.fill_between(x, y.min(), y.max(), color=colour, alpha=0.15, lw=0)
    axis.set(xlabel="realised missing rate (share of missing modalities)", ylabel=METRIC_NAMES[metric])


def legend_above(axis: Axes, room: float, **options: Any) -> None:
    """Draw a legend inside the axis; ``room``: share of the height that is added above the curves for it."""
    low, high = axis.get_ylim()
    axis.set_ylim(low, high + room * (high - low))
    axis.legend(**options)
