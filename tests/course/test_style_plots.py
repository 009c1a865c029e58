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


def test_reliability_shows_shares_of_draws_with_two_standard_errors():
    """Against the exact probability, in bins of ten samples; here the draws know nothing of it."""
    rng = np.random.default_rng(0)
    exact, drawn = rng.dirichlet([1, 1], 40), rng.dirichlet([5, 5], 40)
    axis = style_plots.reliability(exact, drawn, ("a", "b"), bins=4).axes[0]
    assert len(axis.containers) == 2
    for r, container in enumerate(axis.containers):
        bins = np.argsort(exact[:, r]).reshape(4, 10)
        x, y = np.array(container.lines[0].get_data(), dtype=float)
        np.testing.assert_allclose(x, exact[bins, r].mean(axis=1))
        np.testing.assert_allclose(y, drawn[bins, r].mean(axis=1))
        bars = [np.ptp(segment[:, 1]) / 2 for segment in container.lines[2][0].get_segments()]
        np.testing.assert_allclose(bars, 2 * (drawn - exact)[bins, r].std(axis=1, ddof=1) / 10**0.5)
