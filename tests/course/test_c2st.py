"""c2st: equal, shifted and bimodal samples."""

import numpy as np
import pytest

from imder_course.c2st import c2st
from imder_lib import UserError

N = 200


def test_equal_and_shifted_samples():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, N, 2)) * [1, 50] + [0, 1000]  # standardised: scales do not matter
    assert 0.42 < c2st(x, y) < 0.58
    assert c2st(x, y + np.array([10, 0])) > 0.99


def test_distinguishes_two_clusters_from_a_gaussian_with_the_same_moments():
    rng = np.random.default_rng(0)
    x = np.stack([rng.choice([-1, 1], N) + 0.1 * rng.normal(size=N), rng.normal(size=N)], axis=1)
    y = rng.multivariate_normal(np.zeros(2), np.diag([1.01, 1]), N)
    assert c2st(x, y) > 0.8


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((9, 2)), np.zeros((9, 3)), r"\(9, 2\) and \(9, 3\)"),
        (np.zeros(9), np.zeros(9), r"\(9,\)"),
        (np.zeros((4, 2)), np.zeros((4, 2)), "N >= 5"),
        (np.full((9, 2), np.nan), np.zeros((9, 2)), "finite"),
        (np.eye(9)[:, :2] * [1, 0], np.zeros((9, 2)), "column 1"),
    ],
)
def test_bad_samples_raise(x, y, message):
    with pytest.raises(UserError, match=message):
        c2st(x, y)
