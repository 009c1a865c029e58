"""Style: colours distinct for colour-blind readers, differences in more than colour, and contrast."""

from itertools import combinations

import colour
import matplotlib.pyplot as plt
import numpy as np
import pytest

from imder_course import style
from imder_course.diagram import TINT
from imder_course.plots import RIGHT, WRONG

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings of the package colour
KINDS = ("Normal", "Protanomaly", "Deuteranomaly", "Tritanomaly")
PALETTE = (style.BLUE, style.GOLD, style.MAROON, style.SKY, style.BROWN, style.INDIGO, style.GREY, style.SILVER)
PALETTE += (style.BLACK,)


def linear(code):
    """sRGB "#RRGGBB" as linear light (3,)."""
    return colour.cctf_decoding(np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) / 255, "sRGB")


def seen(code, kind):
    """CIE Lab of a colour as a reader of this kind sees it (Machado et al., 2009, full severity)."""
    light = linear(code)
    if kind != "Normal":
        light = np.clip(colour.blindness.matrix_cvd_Machado2009(kind, 1.0) @ light, 0, 1)
    return colour.XYZ_to_Lab(colour.RGB_to_XYZ(light, "sRGB"))


def contrast(a, b):
    """WCAG 2 contrast ratio."""
    dark, bright = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_any_two_colours_differ_for_every_reader(kind):
    apart = {(a, b): colour.delta_E(seen(a, kind), seen(b, kind)) for a, b in combinations(PALETTE, 2)}
    assert min(apart.values()) > 14, min(apart, key=apart.get)
    assert colour.delta_E(seen(RIGHT, kind), seen(WRONG, kind)) > 14


def test_contrast_of_lines_and_text():
    assert min(contrast(c, "#FFFFFF") for c in PALETTE) >= 3  # WCAG 1.4.11, graphics
    with plt.style.context("imder_course.imder"):
        texts = {plt.rcParams[k] for k in ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")}
        cycle = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    assert min(contrast(f"#{c.lstrip('#')}", "#FFFFFF") for c in texts) >= 4.5  # WCAG 1.4.3, text
    assert min(contrast(c, "#FFFFFF") for c in (RIGHT, WRONG)) >= 4.5
    assert min(contrast("#222222", tint) for tint in TINT.values()) >= 4.5
    assert sorted(f"#{c.lstrip('#')}" for c in cycle) == sorted(PALETTE)


def test_methods_differ_in_more_than_colour():
    methods = style.METHODS.values()
    assert len({m.marker for m in methods}) == len(methods)
    assert len({m.label for m in methods}) == len(methods)
    assert {m.colour for m in methods} <= set(PALETTE)
