"""evaluate: rows, rates, baselines, and independence of the batch."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_model

from imder_lib import IMDer, ModelConfig, TrainConfig, UserError, evaluate, fit, load_data
from imder_lib.data.schema import MultimodalData
from imder_lib.diffusion.samplers import Sampler
from imder_lib.experiment.evaluation import predict
from imder_lib.experiment.metrics import metrics
from imder_lib.model.recovery import encode_split


def test_one_row_per_case_method_and_seed(data, model):
    table = evaluate(model, data.test, ["fixed", "random", "released"], seeds=[1, 2])
    assert len(table) == (7 + 8 + 8) * 5 * 2
    assert set(table["method"]) == {"imder", "zero", "mean", "constant", "bayes"}
    random = table[table["protocol"] == "random"]
    nominal = random["rate"].clip(upper=2 / 3)
    assert ((random["realised"] - nominal).abs() <= 1 / len(data.test)).all()
    complete = table[table["case"] == "text+audio+vision"].drop_duplicates("method").set_index("method")["mae"]
    assert complete["imder"] == complete["zero"] == complete["mean"]  # nothing is missing


def test_results_do_not_depend_on_batches(data, model):
    a, b = (evaluate(model, data.test, ["fixed"], [1], batch_size=n) for n in (24, 7))
    pd.testing.assert_frame_equal(a, b, rtol=1e-4)


def test_missing_features_are_never_read(data):
    """Predictions are equal if the missing features are replaced by others."""
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


def test_bad_protocols_raise(data, model):
    with pytest.raises(UserError, match="sometimes"):
        evaluate(model, data.test, ["sometimes"])
    with pytest.raises(UserError, match=r"0\.8"):
        evaluate(model, data.test, [("random", 0.8)])


def test_classes_from_training_to_table(tmp_path):
    data = load_data("digits")
    small = MultimodalData("digits", {k: s.first(60) for k, s in data.splits.items()}, data.sha256)
    config = ModelConfig(data.widths, layers=1, joint_channels=32, joint_blocks=1, sampler=Sampler(steps=3), outputs=10)
    budget = TrainConfig(seed=1, fusion_epochs=2, diffusion_epochs=1, adapt_epochs=1, cache_patterns=1)
    with pytest.raises(UserError, match="1 outputs, the labels are 10 classes"):
        fit(IMDer(replace(config, outputs=1), seed=1), small, budget, tmp_path / "no")
    model = fit(IMDer(config, seed=1), small, budget, tmp_path / "run").model
    table = evaluate(model, small.test, ["fixed"], [1], draws=3)
    assert set(table["method"]) == {"imder", "zero", "mean", "constant"}
    assert {"acc", "f1_weighted", "f1_macro"} <= set(table)
    assert not {"mae", "cover80"} & set(table)
    share = np.bincount(small.train.labels).argmax()
    constant = table[table["method"] == "constant"]["acc"]
    assert (constant == np.mean(small.test.labels == share)).all()
    latents, ids = encode_split(model, small.test), small.test.ids
    available = np.array([[True, True, False]] * 60)
    p = predict(model, model.recoverer, latents, ids, available, 1, draws=3)
    assert p.shape == (3, 60, 10)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-5)
    row = table[(table["case"] == "top+middle") & (table["method"] == "imder")].iloc[0]
    assert row["acc"] == np.mean(p.mean(0).argmax(-1) == small.test.labels)
