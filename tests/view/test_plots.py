"""Figures draw what they are given."""

import matplotlib
import numpy as np

from imder_lib.view import plots

matplotlib.use("agg")


def test_ids_are_text_and_no_formula():
    features = {"text": np.ones((4, 3)), "audio": np.zeros((4, 2))}
    title = r"sample clip$_$1 of \frac$, label 0.5"  # ids of MOSI files hold $_$
    figure = plots.feature_samples(features, title)
    figure.canvas.draw()
    assert figure.get_suptitle() == title
