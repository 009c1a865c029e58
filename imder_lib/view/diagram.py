"""The framework, drawn by code: the way of a sample from features to a prediction."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from imder_lib.view.style import BLUE, BROWN, GREY

TINT = {BLUE: "#E4EEF8", BROWN: "#F7EBDD", GREY: "#F2F2F2"}


def _box(
    axis: Axes, x: float, y: float, w: float, h: float, text: str, colour: str = BLUE, dashed: bool = False
) -> None:
    style = {"boxstyle": "round,pad=0.02,rounding_size=0.12", "ec": colour, "fc": TINT[colour], "lw": 1.5}
    axis.add_patch(FancyBboxPatch((x, y), w, h, ls="--" if dashed else "-", **style))
    axis.text(x + w / 2, y + h / 2, text, ha="center", va="center", fontsize=9)


def _arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = GREY) -> None:
    axis.annotate(
        "", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.4, "shrinkA": 3, "shrinkB": 3}
    )


def framework(modalities: Sequence[str] = ("text", "audio", "vision"), missing: str = "audio") -> Figure:
    """encode -> recover -> fuse -> predict, with one modality missing.

    Args:
        modalities: from top to bottom.
        missing: drawn out of noise.
    """
    figure = Figure(figsize=(11, 3.9), layout="none")
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, 11), ylim=(0.4, 4.5))
    axis.axis("off")
    rows = dict(zip(modalities, (3.2, 1.9, 0.6), strict=False))
    for m, y in rows.items():
        gone = m == missing
        colour = BROWN if gone else BLUE
        _box(axis, 0.15, y, 1.35, 0.7, f"{m}\nmissing" if gone else f"{m}\n(T, D)", colour, dashed=gone)
        if gone:
            _box(axis, 2.0, y, 1.25, 0.7, "noise z\nat sigma = 40", colour)
        else:
            _box(axis, 2.0, y, 1.25, 0.7, "encoder", colour)
            _arrow(axis, (1.55, y + 0.35), (1.98, y + 0.35))
        _box(axis, 6.55, y, 1.2, 0.7, "recovered\nlatent" if gone else "latent", colour)
        _arrow(axis, (7.8, y + 0.35), (8.23, 2.25))
    y = rows[missing]
    _box(axis, 3.75, y - 0.12, 2.3, 0.94, "reverse diffusion\nD(x, sigma, condition)\n20 network calls", BROWN)
    _arrow(axis, (3.3, y + 0.35), (3.73, y + 0.35), BROWN)
    _arrow(axis, (6.1, y + 0.35), (6.53, y + 0.35), BROWN)
    for m, other in rows.items():
        if m != missing:
            _arrow(axis, (3.3, other + 0.35), (6.53, other + 0.35), BLUE)
            towards = y + 0.87 if other > y else y - 0.17
            _arrow(axis, (4.9, other + 0.35), (4.9, towards), BLUE)
            axis.text(5.0, (other + 0.35 + towards) / 2, "condition", fontsize=9, color=BLUE, va="center")
    _box(axis, 8.25, 1.6, 1.25, 1.3, "fusion:\neach modality\nattends to\nthe others", GREY)
    _box(axis, 9.95, 1.9, 0.95, 0.7, "sentiment", GREY)
    _arrow(axis, (9.55, 2.25), (9.93, 2.25))
    heads = {0.82: "features", 2.62: "encode", 4.9: "recover", 7.15: "latents", 8.87: "fuse", 10.42: "predict"}
    for x, name in heads.items():
        axis.text(x, 4.2, name, ha="center", fontsize=10.5, weight="bold")
    return figure
