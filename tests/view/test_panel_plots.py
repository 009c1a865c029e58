"""Figures beneath the panels: what drawing one leaves behind."""

import base64
import gc
import weakref

import pytest
from matplotlib.figure import Figure

from imder_lib.errors import UserError
from imder_lib.view.panel_plots import draw_png


def test_a_figure_is_drawn_and_gone_without_a_full_collection():
    made, full = [], gc.get_stats()[2]["collections"]

    def make() -> Figure:
        figure = Figure()
        figure.add_subplot().plot([1, 2])
        made.append(weakref.ref(figure))
        return figure

    for _ in range(20):
        assert base64.b64decode(draw_png(make)).startswith(b"\x89PNG")
    assert [figure for figure in made if figure() is not None] == []
    assert gc.get_stats()[2]["collections"] == full


@pytest.mark.parametrize("collects", [True, False])
def test_the_collector_is_left_as_it_was(collects):
    def refuse() -> Figure:
        raise UserError("not this one")

    (gc.enable if collects else gc.disable)()
    try:
        with pytest.raises(UserError):
            draw_png(refuse)
        assert gc.isenabled() == collects
    finally:
        gc.enable()
