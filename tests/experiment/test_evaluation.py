"""evaluate: rows, rates, baselines, and a sample's noise that does not depend on its batch."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_model

from imder_lib import UserError, evaluate
from imder_lib.experiment.metrics import metrics


def test_a_row_for_each_condition_method_and_seed(data, model):
    table = evaluate(model, data.test, ["fixed", "random", "released"], seeds=[1, 2])
    assert len(table) == (7 + 8 + 8) * 5 * 2
    assert set(table["method"]) == {"imder", "zero", "mean", "constant", "bayes"}
    random = table[table["protocol"] == "random"]
    nominal = random["rate"].clip(upper=2 / 3)
    assert ((random["realised"] - nominal).abs() <= 1 / len(data.test)).all()
    complete = table[table["condition"] == "text+audio+vision"].drop_duplicates("method").set_index("method")["mae"]
    assert complete["imder"] == complete["zero"] == complete["mean"]  # nothing is missing


def test_numbers_do_not_depend_on_batches(data, model):
    a, b = (evaluate(model, data.test, ["fixed"], [1], batch_size=n) for n in (24, 7))
    pd.testing.assert_frame_equal(a, b, rtol=1e-4)


def test_what_is_missing_is_never_read(data):
    """The same numbers when the missing features are replaced by nonsense."""
    model = tiny_model().eval()
    batch = data.test.batch()
    available = torch.tensor([[True, False, True]] * len(data.test))
    with torch.no_grad():
        a = model(batch.features, available, generator=torch.Generator().manual_seed(0)).prediction
        batch.features["audio"] = torch.full_like(batch.features["audio"], 7.0)
        b = model(batch.features, available, generator=torch.Generator().manual_seed(0)).prediction
    assert torch.equal(a, b)


def test_constant_is_the_training_median(data, model):
    table = evaluate(model, data.test, ["fixed"], [1])
    constant = np.full(len(data.test), np.median(data.train.labels))
    mae = table[table["method"] == "constant"]["mae"].unique()
    assert mae.tolist() == pytest.approx([metrics(constant, data.test.labels)["mae"]])


def test_unknown_protocol(data, model):
    with pytest.raises(UserError, match="sometimes"):
        evaluate(model, data.test, ["sometimes"])
    with pytest.raises(UserError, match=r"0\.8"):
        evaluate(model, data.test, [("random", 0.8)])
