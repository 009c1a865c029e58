"""evaluate: rows, rates, baselines, and independence of the batch."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_model

from imder_lib import IMDer, ModelConfig, TrainConfig, UserError, changed, evaluate, fit, load_data
from imder_lib.data.schema import MultimodalData, Split
from imder_lib.experiment.cases import rates_of
from imder_lib.experiment.evaluation import predict
from imder_lib.experiment.metrics import coverage, metrics
from imder_lib.experiment.prediction import Predictor
from imder_lib.model.recovery import MeanFill, encode_split


def test_one_row_per_case_method_and_seed(data, model):
    table = evaluate(model, data.test, ["fixed", "random", "released"], seeds=[1, 2])
    assert len(table) == (7 + 8 + 8) * 5 * 2
    assert set(table["method"]) == {"imder", "zero", "mean", "constant", "bayes"}
    random = table[table["protocol"] == "random"]
    nominal = random["rate"].clip(upper=2 / 3)
    assert ((random["realised"] - nominal).abs() <= 1 / len(data.test)).all()
    complete = table[table["case"] == "text+audio+vision"].drop_duplicates("method").set_index("method")["mae"]
    assert complete["imder"] == complete["zero"] == complete["mean"]  # nothing is missing


def test_the_protocols_with_probabilities(data, model):
    rates = {"text": 0.2, "audio": 0.9}
    table = evaluate(model, data.test, ["instance", "imbalanced", ("imbalanced", rates)], 1, baselines=False)
    assert list(table["protocol"]) == ["instance"] * 8 + ["imbalanced"] * 4
    assert table["case"].iloc[-1] == "text=0.2+audio=0.9"
    assert table["rate"].iloc[-1] == pytest.approx(1.1 / 3)
    with pytest.raises(UserError, match="rates 'text=2'"):
        evaluate(model, data.test, [("imbalanced", {"text": 2})])


def test_results_do_not_depend_on_batches(data, model):
    latents, mask = encode_split(model, data.test), np.array([[True, False, True]] * len(data.test))
    a, b = (predict(model, model.recoverer, latents, data.test.ids, mask, 1, 2, batch_size=n) for n in (24, 7))
    np.testing.assert_allclose(a, b, rtol=1e-4)


def test_several_models_stand_in_one_table(data, model):
    other, cases = tiny_model(seed=1), [("fixed", "text"), ("random", 0.3)]
    table = evaluate({"a": model, "b": other}, data.test, cases, [1, 2], draws=2)
    assert set(table["method"]) == {"a", "b", "zero", "mean", "constant", "bayes"}
    for name, m in {"a": model, "b": other}.items():
        alone = evaluate({name: m}, data.test, cases, [1, 2], draws=2, baselines=False)
        rows = table[table["method"] == name].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, alone)
    widths = dict(reversed(model.config.widths.items()))
    for wrong in ({}, {"zero": model}, {"a": model, "b": tiny_model(widths)}):
        with pytest.raises(UserError, match="models: expected"):
            evaluate(wrong, data.test)


def test_each_seed_has_draws_of_its_own(data, model):
    """Under one pattern: the masks are equal, so only the noise can differ. Fills of a fixed value do not."""
    both = evaluate(model, data.test, [("fixed", "text")], [1, 2], draws=2)
    mae = both.pivot(index="method", columns="seed", values="mae")
    assert mae.loc["imder", 1] != mae.loc["imder", 2]
    assert (mae[1] == mae[2]).drop("imder").all()
    alone = evaluate(model, data.test, [("fixed", "text")], [2], draws=2)
    pd.testing.assert_frame_equal(both[both["seed"] == 2].reset_index(drop=True), alone)


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
    config = changed(ModelConfig(data.widths), fusion={"layers": 1, "outputs": 10}, sampler={"steps": 3},
                     joint={"channels": 32, "blocks": 1})  # fmt: skip
    stages = {"fusion": {"epochs": 2}, "diffusion": {"epochs": 1}, "adapt": {"epochs": 1, "patterns": 1}}
    budget = changed(TrainConfig(seed=1), **stages)
    with pytest.raises(UserError, match="1 outputs, the labels are 10 classes"):
        fit(IMDer(changed(config, fusion={"outputs": 1}), seed=1), small, budget, tmp_path / "no")
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


def test_settings_of_other_kinds_mean_the_same(data, model):
    expected = evaluate(model, data.test, [("random", 0.3)], [1], draws=2)
    for case in (("random", np.float32(0.3)), ("random", np.float64(0.3))):
        pd.testing.assert_frame_equal(evaluate(model, data.test, [case], 1, draws=2.0), expected)
    names = evaluate(model, data.test, [("fixed", ("text", "audio"))], np.int64(1))
    pd.testing.assert_frame_equal(names, evaluate(model, data.test, [("fixed", "text+audio")]))
    assert evaluate(model, data.test, "random", 1)["case"].nunique() == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protocols": [("random", None)]}, "needs a missing rate as a number, got None"),
        ({"protocols": "rendom"}, r"unknown protocol 'rendom': did you mean random\?"),
        ({"protocols": ("random", 0.3)}, "expected names or pairs"),
        ({"draws": 2.5}, "draws must be a whole number of at least 1, got 2.5"),
        ({"draws": 0}, "draws must be"),
        ({"protocols": [("released", 0.3, 0)]}, "the batch size of protocol 'released' must be a whole number"),
        ({"protocols": [("random", 0.3, 32)]}, "expected names or pairs"),
        ({"protocols": [("released", 0.3, 32, 1)]}, "expected names or pairs"),
        ({"seeds": "1"}, "seeds must be"),
    ],
)
def test_bad_settings_are_said_before_anything_runs(data, model, monkeypatch, settings, message):
    monkeypatch.setattr(model, "encode", None)
    with pytest.raises(UserError, match=message):
        evaluate(model, data.test, **settings)


@pytest.mark.parametrize(("M", "highest"), [(2, 0.5), (4, 0.7)])
def test_rates_follow_the_number_of_modalities(M, highest):
    widths = dict(zip(("text", "audio", "hand", "gaze"), (12, 5, 6, 4), strict=False))
    widths = {m: widths[m] for m in list(widths)[:M]}
    rng = np.random.default_rng(0)
    features = {m: rng.standard_normal((24, 10, D)).astype(np.float32) for m, D in widths.items()}
    split = Split(features, rng.uniform(-3, 3, 24).astype(np.float32), [str(i) for i in range(24)], 10)
    table = evaluate(tiny_model(widths), split)
    assert (table["protocol"] == "fixed").sum() == 2 * (2**M - 1)  # imder and zero
    random = table[table["protocol"] == "random"]
    assert random["rate"].max() == highest
    assert ((random["realised"] - random["rate"]).abs() <= 1 / 24 / M + 1e-9).all()
    assert rates_of("released", widths) == ()
    with pytest.raises(UserError, match="'released' supports three modalities"):
        evaluate(tiny_model(widths), split, ["released"])


def test_data_of_other_widths_or_modalities(data):
    model = tiny_model({"text": 12, "audio": 74, "vision": 35}).train()
    table = r"\(modality, expected, found\): text 12 12; audio 74 5; vision 35 8\."
    for call in (lambda: evaluate(model, data.test), lambda: encode_split(model, data.test)):
        with pytest.raises(UserError, match=table):
            call()
    with pytest.raises(UserError, match="vision none 8"):
        evaluate(tiny_model({"text": 12, "audio": 5}), data.test)
    with pytest.raises(UserError, match="hand 3 none"):
        evaluate(tiny_model({"text": 12, "audio": 5, "hand": 3}), data.test)
    assert model.training


def test_the_model_keeps_its_mode_after_an_error(data, model, monkeypatch):
    model.train()
    monkeypatch.setattr(model.fusion, "forward", None)
    with pytest.raises(TypeError):
        evaluate(model, data.test)
    assert model.training


def test_a_protocol_that_masks_nothing_is_said(data, model):
    with pytest.warns(UserWarning, match="masks nothing here: it needs six batches or more, 24 samples are 5 of 5"):
        evaluate(model, data.test, [("released", 0.7, 5)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(model, data.test, [("released", 0.7, 4)])
        evaluate(model, data.test, [("released", 0)])


def test_the_limit_does_not_depend_on_the_order_of_the_modalities(data):
    tables = [
        evaluate(tiny_model(dict(w)), data.test, ["fixed"])
        for w in (data.widths.items(), reversed(data.widths.items()))
    ]
    limits = []
    for table in tables:
        rows = table[table["method"] == "bayes"]
        limits.append({frozenset(case.split("+")): mae for case, mae in zip(rows["case"], rows["mae"], strict=True)})
    assert limits[0] == limits[1]


def test_baselines_are_not_refined(data):
    table, sharper = (evaluate(m, data.test, [("fixed", "text")]) for m in (tiny_model(preset="released"), scaled()))
    for method, equal in (("zero", True), ("mean", True), ("imder", False)):
        a, b = (t.set_index("method").loc[method, "mae"] for t in (table, sharper))
        assert (a == b) == equal, method


def scaled():
    """The tiny released model with other refiners."""
    model = tiny_model(preset="released")
    for p in model.refiners.parameters():
        p.data *= 3
    return model


def test_an_unknown_spread_has_no_coverage():
    found = coverage(np.zeros(3), np.array([1.0, np.nan, 1.0]), np.zeros(3))
    assert all(np.isnan(v) for v in found.values())
    assert coverage(np.zeros(2), np.ones(2), np.array([0.0, 9.0])) == {"cover50": 0.5, "cover80": 0.5, "cover95": 0.5}


def test_the_spread_of_draws_is_their_standard_deviation():
    asked = []

    def draws(rows, mask):
        asked.append(rows.tolist())
        return np.array([[1.0, 2.0, 5.0], [3.0, 8.0, 5.0]])[:, rows]

    predictor, mask = Predictor(draws, 3), np.array([[True, False]] * 3)
    np.testing.assert_allclose(predictor(mask), [[2, 5, 5], [2**0.5, 18**0.5, 0]])
    predictor(mask)
    assert asked == [[0, 1, 2]]


def test_intervals_have_the_variance_of_the_draws_and_of_the_error_on_complete_data(data):
    """Labels stand just inside and just outside the ends of the intervals that are computed here."""
    marks, labels = np.ones((len(data.valid), 3), dtype=bool), data.valid.labels.copy()
    marks[:6, 1], labels[:6] = False, 9.0  # the error of these is large, but none on complete data
    parts = data.splits | {"valid": replace(data.valid, available=marks, labels=labels)}
    data = MultimodalData(data.name, parts, data.sha256, data.process)
    model, mask = tiny_model().eval(), np.array([[True, False, False]] * len(data.test))
    model.fusion.out.weight.data *= 20  # draws then differ by as much as the error
    latents = encode_split(model, data.test)
    each = predict(model, model.recoverer, latents, data.test.ids, mask, 1, draws=4)
    with torch.no_grad():
        error = model.fusion(encode_split(model, data.valid))[0][6:, 0].numpy() - data.valid.labels[6:]
    residual, spread = np.sqrt(np.mean(error**2)), each.std(axis=0, ddof=1)
    assert 0.2 < np.median(spread) / residual < 5
    ends = np.outer(np.array([0.6745, 1.2816, 1.9600]), [0.99, -1.01]).ravel()  # of standard normals
    labels = each.mean(axis=0) + np.tile(ends, 4) * np.hypot(spread, residual)
    parts = data.splits | {"test": replace(data.test, labels=labels.astype(np.float32))}
    other = MultimodalData(data.name, parts, data.sha256, data.process)
    row = evaluate(model, other.test, [("fixed", "text")], [1], draws=4).set_index("method").loc["imder"]
    assert row[["cover50", "cover80", "cover95"]].tolist() == [1 / 6, 3 / 6, 5 / 6]


@pytest.mark.parametrize("name", ["test", "train"])
def test_baseline_mean_is_that_of_the_training_split(name, data, model):
    split = data.splits[name]
    table = evaluate(model.eval(), split, [("fixed", "text")]).set_index("method")
    fill, mask = MeanFill(model.config), np.array([[True, False, False]] * len(split))
    fill.prepare(encode_split(model, data.train))
    predicted = predict(model, fill, encode_split(model, split), split.ids, mask, 1)[0]
    assert table.loc["mean", "mae"] == metrics(predicted, split.labels)["mae"]


def test_what_cannot_stand_in_one_table(data, model):
    with pytest.raises(UserError, match=r"two batch sizes at rate 0\.7"):
        evaluate(model, data.test, [("released", 0.7, 2), ("released", 0.7, 4)], 1)
    digits = load_data("digits", sizes={"train": 30, "valid": 10, "test": 10})
    with pytest.raises(UserError, match="the model has 1 outputs, the labels are 10 classes"):
        evaluate(tiny_model(digits.widths), digits.test)
    alone = replace(digits.test, data=None)  # nothing is known of the classes then
    model = IMDer(changed(tiny_model(digits.widths).config, fusion={"outputs": 10}))
    assert "acc" in evaluate(model, alone, ["fixed"])
