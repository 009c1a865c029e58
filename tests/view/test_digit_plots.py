"""Figures of digits: what they show."""

import numpy as np
import pytest

from imder_lib.view import digit_plots
from imder_lib.view.style import use_style


def test_completions_mark_wrong_answers():
    use_style()
    x = np.random.default_rng(0).uniform(-1, 1, (3, 2, 8, 8))
    given = x[0].copy()
    given[:, 5:] = np.nan
    figure = digit_plots.completions(x[0], given, x, np.array([[1, 2], [1, 3], [4, 2]]), np.array([1, 3]), [1, 2])
    titles = [a.get_title("left") for a in figure.axes]
    first, second = ["true 1", "given", "1", "1", "4 ×", "all: 1"], ["true 2", "given", "2", "3 ×", "2", "all: 3 ×"]
    assert titles == first + second
    assert figure.axes[1].images[0].get_array().mask[5:].all()  # what is missing is not drawn


def test_a_strip_needs_a_title_for_each_image():
    with pytest.raises(ValueError):
        digit_plots.digit_strip([np.zeros((8, 8))], ["a", "b"])
