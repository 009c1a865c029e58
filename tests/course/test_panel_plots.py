"""Figures of the panels are drawn to a PNG and then freed."""

import base64
import gc
import weakref

import pytest
from matplotlib.figure import Figure

from imder_course.panel_plots import draw_png
from imder_lib.errors import UserError


def test_figures_are_drawn_and_freed():
    made = []

    def make() -> Figure:
        figure = Figure()
        figure.add_subplot().plot([1, 2])
        made.append(weakref.ref(figure))
        return figure

    for _ in range(20):
        assert base64.b64decode(draw_png(make)).startswith(b"\x89PNG")
    assert [figure for figure in made if figure() is not None] == []


def test_garbage_collection_is_enabled_after_an_error():
    def refuse() -> Figure:
        raise UserError("not this one")

    with pytest.raises(UserError):
        draw_png(refuse)
    assert gc.isenabled()
