"""Figures of the hidden styles."""

import matplotlib
import numpy as np

from imder_course import style_plots
from imder_lib.data.synthetic import affect_process

matplotlib.use("agg")


def test_the_ironic_tone_is_the_mean_of_the_others():
    process = affect_process()
    x, _, _, styles = process.sample(3000, np.random.default_rng(0))
    along = style_plots.tone_plane(process, "vision", x["vision"])[:, 0]
    centre = {name: along[styles == r].mean() for r, name in enumerate(process.styles)}
    assert centre["sincere"] < centre["ironic"] < centre["masked"]
    assert abs((centre["sincere"] + centre["masked"]) / 2 - centre["ironic"]) < 0.1


def test_style_clouds_have_shares_and_exact_draws_are_reliable():
    xy, styles, names = np.zeros((4, 2)), np.array([0, 0, 1, 2]), ("a", "b", "c")
    figure = style_plots.style_clouds({"true": (xy, styles), "drawn": (xy, styles)}, names)
    assert [t.get_text() for t in figure.axes[1].get_legend().get_texts()] == ["a 50%", "b 25%", "c 25%"]
    exact = np.random.default_rng(0).dirichlet([1, 1, 1], 200)
    axis = style_plots.reliability(exact, exact, names).axes[0]
    for container in axis.containers:
        x, y = np.array(container.lines[0].get_data(), dtype=float)
        np.testing.assert_allclose(x, y)
        assert np.all(np.diff(x) > 0)
