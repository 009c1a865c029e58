"""Figures show the given data."""

import matplotlib
import numpy as np
import pandas as pd
import pytest

from imder_course import plots
from imder_course.style import use_style

matplotlib.use("agg")


def test_ids_are_not_parsed_as_formulas():
    features = {"text": np.ones((4, 3)), "audio": np.zeros((4, 2))}
    title = r"sample clip$_$1 of \frac$, label 0.5"  # ids of MOSI files contain $_$
    figure = plots.feature_samples(features, title)
    figure.canvas.draw()
    assert figure.get_suptitle() == title


def test_completions_mark_wrong_answers():
    use_style()
    x = np.random.default_rng(0).uniform(-1, 1, (3, 2, 8, 8))
    given = x[0].copy()
    given[:, 5:] = np.nan
    figure = plots.completions(x[0], given, x, np.array([[1, 2], [1, 3], [4, 2]]), np.array([1, 3]), [1, 2])
    titles = [a.get_title("left") for a in figure.axes]
    first, second = ["true 1", "given", "1", "1", "4 ×", "all: 1"], ["true 2", "given", "2", "3 ×", "2", "all: 3 ×"]
    assert titles == first + second
    assert figure.axes[1].images[0].get_array().mask[5:].all()  # missing pixels are not drawn


def test_digit_strip_needs_one_title_per_image():
    with pytest.raises(ValueError):
        plots.digit_strip([np.zeros((8, 8))], ["a", "b"])


def test_metric_by_pattern_shows_mean_and_range_over_seeds():
    rows = [
        {"case": case, "method": method, "mae": value + seed}
        for case, value in (("text", 1.0), ("text+audio", 3.0))
        for method in ("imder", "zero")
        for seed in (0.0, 1.0)
    ]
    axis = plots.metric_by_pattern(pd.DataFrame(rows), "mae").axes[0]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["text", "text\n+ audio"]
    assert [t.get_text() for t in axis.get_legend().get_texts()] == ["IMDer", "zero fill"]
    heights = np.concatenate([np.ravel(line.get_ydata()) for line in axis.lines])
    np.testing.assert_allclose(np.unique(heights[np.isfinite(heights)]), [1, 1.5, 2, 3, 3.5, 4])
