"""The affect process: its closed forms against brute force and Monte Carlo."""

import numpy as np
import pytest
import torch

from imder_lib import availability, bayes_prediction, exact_posterior, load_data, patterns
from imder_lib.data.posterior import convolution_matrix
from imder_lib.data.synthetic import affect_process

SMALL = {"text": 6, "audio": 3, "vision": 4}


def joint_covariance(process, names):
    """Brute force: covariance of the stacked features of some modalities, flattened (T, D) each."""
    Z = np.kron(process.correlation, np.eye(4))
    maps = [np.kron(np.eye(process.steps), process.loadings[m]) for m in names]
    noise = [np.full(len(a), process.noise[m] ** 2) for a, m in zip(maps, names, strict=True)]
    L = np.concatenate(maps)
    return L @ Z @ L.T + np.diag(np.concatenate(noise))


@pytest.mark.parametrize("given", [("audio",), ("audio", "vision"), ("vision",)])
def test_posterior_is_that_of_the_joint_gaussian(given):
    process = affect_process(SMALL, steps=5)
    features, _, _ = process.sample(3, np.random.default_rng(1))
    n_miss = 5 * SMALL["text"]
    C = joint_covariance(process, ["text", *given])
    gain = C[:n_miss, n_miss:] @ np.linalg.inv(C[n_miss:, n_miss:])
    x = np.concatenate([features[m].reshape(3, -1) for m in given], axis=1)
    ours = exact_posterior(process, features, "text", given)
    np.testing.assert_allclose(ours.mean.reshape(3, -1), x @ gain.T, atol=1e-6)
    np.testing.assert_allclose(ours.covariance, C[:n_miss, :n_miss] - gain @ C[n_miss:, :n_miss], atol=1e-8)
    image = np.random.default_rng(2).standard_normal((4, n_miss))
    of_image = exact_posterior(process, features, "text", given, image)
    np.testing.assert_allclose(of_image.mean, ours.mean.reshape(3, -1) @ image.T, atol=1e-6)
    np.testing.assert_allclose(of_image.covariance, image @ ours.covariance @ image.T, atol=1e-8)


def test_draws_have_the_posteriors_moments():
    process = affect_process(SMALL, steps=3)
    features, _, _ = process.sample(2, np.random.default_rng(1))
    posterior = exact_posterior(process, features, "vision", ["text"])
    draws = posterior.sample(20000, np.random.default_rng(0))
    np.testing.assert_allclose(draws.mean(0), posterior.mean, atol=0.03)
    np.testing.assert_allclose(draws.var(0), np.broadcast_to(posterior.variance, (2, 3, 4)), rtol=0.06)


def test_convolution_matrix_is_the_encoders_convolution():
    conv = torch.nn.Conv1d(6, 4, 3, bias=False)
    x = torch.randn(2, 9, 6)
    matrix = convolution_matrix(conv.weight.detach().numpy(), 9)
    np.testing.assert_allclose(
        x.flatten(1).numpy() @ matrix.T, conv(x.transpose(1, 2)).detach().flatten(1).numpy(), atol=1e-5
    )


# .87 / .85 / .66 / .63 are the targets; at 8000 samples one standard error is at most .006
@pytest.mark.parametrize(
    ("pattern", "acc2"), [("text+audio+vision", 0.87), ("text", 0.85), ("vision", 0.66), ("audio", 0.63)]
)
def test_bayes_limit_has_the_published_shape(pattern, acc2):
    data = load_data(
        "synthetic", sizes={"train": 1, "valid": 1, "test": 8000}, widths={"text": 16, "audio": 5, "vision": 20}
    )
    y = data.test.labels
    available = availability("fixed", len(y), data.modalities, pattern).numpy()
    prediction = bayes_prediction(data.process, data.test.features, available)
    assert ((prediction > 0) == (y > 0)).mean() == pytest.approx(acc2, abs=0.015)


def test_no_linear_prediction_beats_bayes():
    data = load_data("synthetic", sizes={"train": 4000, "valid": 1, "test": 4000}, widths=SMALL, steps=6)
    for pattern in patterns(data.modalities):
        design = [
            np.concatenate([s.features[m].reshape(len(s), -1) for m in pattern], 1) for s in (data.train, data.test)
        ]
        weights = np.linalg.lstsq(design[0], data.train.labels, rcond=None)[0]
        fitted = np.clip(design[1] @ weights, -3, 3)
        available = availability("fixed", 4000, data.modalities, pattern).numpy()
        best = bayes_prediction(data.process, data.test.features, available)
        y = data.test.labels
        assert np.abs(best - y).mean() <= np.abs(fitted - y).mean() + 0.01
        assert np.abs(best - y).mean() >= np.abs(fitted - y).mean() - 0.05  # least squares comes near: same information


def test_default_shapes_are_mosis():
    data = load_data("synthetic", sizes={"train": 2, "valid": 2, "test": 2})
    assert data.widths == {"text": 768, "audio": 5, "vision": 20}
    assert data.steps == 50
    assert "synthetic" in data.describe()


def test_same_seed_same_data_other_seed_other_data():
    kw = {"sizes": {"train": 3, "valid": 1, "test": 1}, "widths": SMALL}
    a, b, c = (load_data("synthetic", seed=s, **kw) for s in (0, 0, 1))
    assert np.array_equal(a.train.features["text"], b.train.features["text"])
    assert not np.array_equal(a.train.features["text"], c.train.features["text"])
    assert a.sha256 == b.sha256 != c.sha256
