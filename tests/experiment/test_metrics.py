"""Metrics against scikit-learn and small examples."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error

from imder_lib import UserError
from imder_lib.experiment.metrics import class_metrics, coverage, metrics, task_loss


def test_against_scikit_learn():
    rng = np.random.default_rng(0)
    y, p = np.round(rng.uniform(-3, 3, 400) * 2) / 2, rng.normal(0, 2, 400)
    m, some = metrics(p, y), y != 0
    assert m["acc2"] == accuracy_score(y[some] > 0, p[some] > 0)
    assert m["f1"] == f1_score(y[some] > 0, p[some] > 0, average="weighted")
    assert m["acc2_has0"] == accuracy_score(y >= 0, p >= 0)
    assert m["f1_has0"] == f1_score(y >= 0, p >= 0, average="weighted")
    assert m["mae"] == pytest.approx(mean_absolute_error(y, p))
    assert m["corr"] == pytest.approx(np.corrcoef(p, y)[0, 1])
    by_hand = [round(min(3, max(-3, a))) == round(min(3, max(-3, b))) for a, b in zip(p, y, strict=True)]
    assert m["acc7"] == np.mean(by_hand)


def test_zero_is_treated_as_in_the_release():
    m = metrics(np.array([0.0, 1.0, -1.0, 0.0]), np.array([1.0, 1.0, -1.0, 0.0]))
    assert m["acc2"] == pytest.approx(2 / 3)  # a prediction of 0 is not positive; labels of 0 are left out
    assert m["acc2_has0"] == 1.0


def test_constant_predictions_and_zero_labels():
    m = metrics(np.ones(4), np.zeros(4))
    assert m["corr"] == 0
    assert np.isnan(m["acc2"])


def test_five_and_seven_classes_by_hand():
    """A prediction of 2.6 is 3 in seven classes and 2 in five, and so on; a half goes to the even number."""
    m = metrics(np.array([2.6, -2.9, 1.4, 0.5, -1.6]), np.array([2.0, -2.0, 1.0, 0.0, -1.0]))
    assert (m["acc5"], m["acc7"]) == (pytest.approx(4 / 5), pytest.approx(2 / 5))


def test_coverage_of_normals_and_by_hand():
    """Central intervals of 50, 80 and 95 % end at .674, 1.282 and 1.960 standard deviations."""
    rng = np.random.default_rng(0)
    mean, std = rng.normal(0, 3, 10_000), rng.uniform(0.1, 5, 10_000)
    found = coverage(mean, std, mean + std * rng.standard_normal(10_000))
    assert found == pytest.approx({"cover50": 0.5, "cover80": 0.8, "cover95": 0.95}, abs=0.015)
    off = np.array([0.67, -0.68, 1.28, -1.29, 1.95, -1.97])
    assert coverage(np.ones(6), np.full(6, 2.0), 1 + 2 * off) == {"cover50": 1 / 6, "cover80": 3 / 6, "cover95": 5 / 6}


def test_bad_predictions_raise():
    with pytest.raises(UserError):
        metrics(np.array([1.0, np.nan]), np.array([1.0, 2.0]))
    with pytest.raises(UserError):
        metrics(np.ones(3), np.ones(2))


def test_classes():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.6, 0.1], [0.2, 0.3, 0.5]])
    y = np.array([0, 1, 0, 2])
    found = class_metrics(p, y)
    assert found["acc"] == 0.75
    assert found["f1_macro"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert found["f1_weighted"] == pytest.approx((2 * 2 / 3 + 2 / 3 + 1) / 4)
    with pytest.raises(UserError, match="expected 0 to 2"):
        class_metrics(p, y + 1)
    with pytest.raises(UserError, match="probabilities"):
        class_metrics(p[:3], y)


def test_the_loss_depends_on_the_type_of_labels():
    logits, y = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[0], [0]])
    assert task_loss(logits, y).item() == pytest.approx(np.mean([np.log1p(np.exp(-2)), np.log1p(np.exp(1))]))
    assert task_loss(torch.tensor([[1.0]]), torch.tensor([[3.0]])).item() == 2
