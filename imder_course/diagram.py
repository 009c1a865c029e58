"""Diagram of the framework, from features to a prediction."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from imder_course.style import BLUE, BROWN, GREY
from imder_lib.diffusion.samplers import Sampler
from imder_lib.diffusion.schedules import SIGMA_MAX

TINT = {BLUE: "#E4EEF8", BROWN: "#F7EBDD", GREY: "#F2F2F2"}
HEADS = {0.82: "features", 2.62: "encode", 4.9: "recover", 7.15: "latents", 8.87: "fuse", 10.42: "predict"}


def _box(axis: Axes, x: float, y: float, w: float, h: float, text: str, colour: str, line: str = "-") -> None:
    style = {"boxstyle": "round,pad=0.02,rounding_size=0.12", "ec": colour, "fc": TINT[colour], "lw": 1.5, "ls": line}
    axis.add_patch(FancyBboxPatch((x, y), w, h, **style))
    axis.text(x + w / 2, y + h / 2, text, ha="center", va="center", fontsize=9)


def _arrow(axis: Axes, x: float, y: float, to_x: float, to_y: float, colour: str = GREY) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "lw": 1.4, "shrinkA": 3, "shrinkB": 3}
    axis.annotate("", (to_x, to_y), (x, y), arrowprops=style)


def framework(modalities: Sequence[str] = ("text", "audio", "vision"), missing: str = "audio") -> Figure:
    """Diagram of encode -> recover -> fuse -> predict with one missing modality.

    Args:
        modalities: from top to bottom.
        missing: the modality that is recovered.
    """
    figure = Figure(figsize=(11, 3.9), layout="none")
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, 11), ylim=(0.4, 4.5))
    axis.axis("off")
    for x, name in HEADS.items():
        axis.text(x, 4.2, name, ha="center", fontsize=10.5, weight="bold")
    places = dict(zip(modalities, (3.55, 2.25, 0.95), strict=False))  # vertical centres of the rows
    middle = places[missing]
    for m, y in places.items():
        texts, colour, line = (f"{m}\n(T, D)", "encoder", "latent"), BLUE, "-"
        if m == missing:
            start = f"noise z\nat sigma = {SIGMA_MAX:.0f}"
            texts, colour, line = (f"{m}\nmissing", start, "recovered\nlatent"), BROWN, "--"
            _arrow(axis, 3.3, y, 3.73, y, BROWN)
            _arrow(axis, 6.1, y, 6.53, y, BROWN)
        else:
            _arrow(axis, 1.55, y, 1.98, y)
            _arrow(axis, 3.3, y, 6.53, y, BLUE)
            end = middle + 0.52 if y > middle else middle - 0.52
            _arrow(axis, 4.9, y, 4.9, end, BLUE)
            axis.text(5.0, (y + end) / 2, "condition", fontsize=9, color=BLUE, va="center")
        _box(axis, 0.15, y - 0.35, 1.35, 0.7, texts[0], colour, line)
        _box(axis, 2.0, y - 0.35, 1.25, 0.7, texts[1], colour)
        _box(axis, 6.55, y - 0.35, 1.2, 0.7, texts[2], colour)
        _arrow(axis, 7.8, y, 8.23, 2.25)
    diffusion = f"reverse diffusion\nD(x, sigma, condition)\n{Sampler().steps} network calls"
    _box(axis, 3.75, middle - 0.47, 2.3, 0.94, diffusion, BROWN)
    _box(axis, 8.25, 1.6, 1.25, 1.3, "fusion:\neach modality\nattends to\nthe others", GREY)
    _box(axis, 9.95, 1.9, 0.95, 0.7, "sentiment", GREY)
    _arrow(axis, 9.55, 2.25, 9.93, 2.25)
    return figure
