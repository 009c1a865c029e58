"""Two moons: the data set, and exact posterior draws against those of the benchmark.

two_moons.npz holds the ten observations, their true parameters, and 1,000 reference draws for each, from sbibm 1.1.0
(https://github.com/sbi-benchmark/sbibm; Lueckmann et al., 2021; MIT licence, see two_moons.LICENSE).
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from imder_course.c2st import c2st
from imder_course.theta_draws import OBSERVATIONS, draws_of_theta, two_moons_posterior
from imder_lib import IMDer, ModelConfig, UserError, changed, load_data
from imder_lib.data.two_moons import simulate
from imder_lib.experiment.closed_form import fit_encoders
from imder_lib.model.recovery import encode_split
from imder_runs.setup import start_run

SBIBM = np.load(Path(__file__).with_name("two_moons.npz"))


def test_the_data_set(tmp_path):
    data = load_data("two_moons", sizes={"test": 50})
    assert {k: len(s) for k, s in data.splits.items()} == {"train": 10000, "valid": 1000, "test": 50}
    assert (data.widths, data.steps, data.classes) == ({"theta": 2, "x": 2}, 1, 0)
    theta, x = data.train.features["theta"], data.train.features["x"]
    assert theta.dtype == x.dtype == data.train.labels.dtype == np.float32
    assert theta.shape == x.shape == (10000, 1, 2)
    np.testing.assert_array_equal(data.train.labels, theta[:, 0, 0])
    assert np.abs(theta).max() <= 1
    assert all((v != 0).any(axis=-1).all() for v in (theta, x))  # no frame looks like padding
    assert (load_data("two_moons", seed=1).test.features["x"][0] != data.test.features["x"][0]).all()
    with pytest.raises(UserError, match="at least one sample"):
        load_data("two_moons", sizes={"test": 0})
    run = start_run("two_moons", "smoke", "1", tmp_path)
    assert (run.data.train.scale, len(run.data.train)) == (None, 64)  # as stored


def test_simulates_around_the_observations():
    np.testing.assert_allclose(SBIBM["observation"], OBSERVATIONS, rtol=1e-6)
    rng = np.random.default_rng(0)
    for theta, x in zip(SBIBM["true_parameters"], OBSERVATIONS, strict=True):
        draws = simulate(np.tile(theta, (2000, 1)), rng)
        assert np.linalg.norm(draws - x, axis=1).min() < 0.02
    with pytest.raises(UserError, match="theta"):
        simulate(np.zeros(2), rng)


@pytest.mark.parametrize("i", [0, 4])  # the prior truncates the fifth posterior
def test_exact_draws_agree_with_the_reference_draws(i):
    draws = two_moons_posterior(OBSERVATIONS[i], 1000, np.random.default_rng(i))
    assert draws.shape == (1000, 2)
    assert 0.47 < c2st(SBIBM["reference"][i], draws) < 0.53


def test_a_truncated_posterior_and_impossible_observations():
    rng = np.random.default_rng(0)
    assert np.abs(two_moons_posterior(OBSERVATIONS[4], 1000, rng)).max() <= 1
    for x, draws in (([3.0, 0.0], 10), ([0.0], 10), ([0.0, np.nan], 10), ([0.0, 0.0], 0)):
        with pytest.raises(UserError, match="expected"):
            two_moons_posterior(np.array(x), draws, rng)


def test_draws_outside_the_prior_are_drawn_again():
    """Those of a model that has not learned, and takes theta to be twice as wide as it is."""
    data = load_data("two_moons", sizes={"train": 100, "valid": 2, "test": 2})
    sizes = {"dim": 4, "fusion": {"layers": 1, "heads": 2}, "joint": {"channels": 8, "blocks": 1}}
    config = changed(ModelConfig(data.widths), **sizes, encoders="components", sampler={"steps": 3})
    model = IMDer(config, seed=1).eval()
    fit_encoders(model, data, torch.arange(100))
    model.recoverer.prepare(encode_split(model, data.train))
    model.recoverer.standardizer.std *= 2
    kept, all_ = (draws_of_theta(model, OBSERVATIONS[:2], 50, seed=1, inside_prior=x) for x in (True, False))
    assert kept.shape == all_.shape == (2, 50, 2)
    for some, every in zip(kept, all_, strict=True):
        inside = (np.abs(every) <= 1).all(axis=1)
        assert 5 < inside.sum() < 45
        np.testing.assert_array_equal(some[: inside.sum()], every[inside])
        assert np.abs(some).max() <= 1
        assert len(np.unique(some, axis=0)) == 50
