"""Training, evaluation and checks on samples that lack a modality in the data."""

import pickle
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import WIDTHS, tiny_model

from imder_course.posterior_check import posterior_check
from imder_lib import IMDer, UserError, changed, evaluate, fit, load_data
from imder_lib.data.missing import availability
from imder_lib.data.schema import MultimodalData, Split
from imder_lib.experiment import stages
from imder_lib.experiment.recovered_cache import fill_cache

M = list(WIDTHS)


def lacking(split, rate=0.3):
    return availability("random", len(split), M, rate, seed=5, ids=split.ids).numpy()


def incomplete(data, number=7.0, marks=lacking):
    """The data, with ``marks(split)`` as what samples have, and ``number`` in place of what they lack."""
    splits = {}
    for name, s in data.splits.items():
        has = marks(s)
        x = {m: np.where(has[:, i, None, None], v, np.float32(number)) for i, (m, v) in enumerate(s.features.items())}
        splits[name] = replace(s, features=x, available=has)
    return MultimodalData(data.name, splits, data.sha256, data.process)


def built(**switches):
    """A tiny model; with encoders "components" and a readout unless switches are given."""
    model = tiny_model(**switches)
    return model if switches else IMDer(changed(model.config, encoders="components", fusion={"readout": True}), seed=0)


def trained(data, config, folder, baselines=True, **switches):
    """Model, history and table."""
    model = built(**switches)
    result = fit(model, data, config, folder)
    cases = [("fixed", "text"), ("fixed", "+".join(M)), ("random", 0.5)]
    return (
        model,
        result.history.drop(columns="seconds"),
        evaluate(model, data.test, cases, [1], draws=2, baselines=baselines),
    )


@pytest.fixture
def short(tiny_config):
    one = {"epochs": 1}
    return changed(tiny_config, fusion=one, diffusion=one, adapt={"epochs": 1, "patterns": 1}, joint=one)


def assert_same(a, b):
    assert all(torch.equal(x, y) for x, y in zip(a[0].state_dict().values(), b[0].state_dict().values(), strict=True))
    for x, y in zip(a[1:], b[1:], strict=True):
        pd.testing.assert_frame_equal(x, y, check_exact=True)


CASES = {
    "kit": ({}, {}),
    "released rules": ({"preset": "released"}, {}),
    "regression": ({"recoverer": "regression"}, {}),
    "observed": ({"preset": "kit"}, {"supervision": "observed", "rate": 0.2}),
}


@pytest.mark.parametrize("case", CASES)
def test_what_stands_where_nothing_is_there_changes_nothing(case, data, short, tmp_path, monkeypatch):
    """Batches would have zeros there; even if they had not, no stage and no prediction would read the numbers."""
    original, runs = Split.batch, []
    monkeypatch.setattr(Split, "batch", lambda split, rows=None: original(replace(split, available=None), rows))
    switches, changes = CASES[case]
    config = replace(short, **changes)
    for x in (7.0, -300.0):
        some = incomplete(data, x)
        assert (some.train.batch().features["text"][~some.train.given(M)[:, 0]] == x).all()
        runs.append(trained(some, config, tmp_path / str(x), baselines=False, **switches))
    assert_same(*runs)
    assert runs[0][1].drop(columns="train").notna().all(axis=None)


def test_baselines_do_not_read_it_either(data):
    model = tiny_model()
    tables = [evaluate(model, incomplete(data, x).test, ["fixed", ("random", 0.5)], [1]) for x in (7.0, -300.0)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


@pytest.mark.parametrize("recipe", ["staged", "released"])
def test_marks_of_complete_samples_change_nothing(recipe, data, short, tmp_path):
    config = replace(short, recipe=recipe)
    marked = incomplete(data, marks=lambda s: np.ones((len(s), 3), dtype=bool))
    assert_same(trained(data, config, tmp_path / "plain"), trained(marked, config, tmp_path / "marked"))


def test_a_file_with_marks_of_complete_samples_gives_the_same_results(data, short, tmp_path):
    for name in ("plain", "marked"):
        value = {k: s.features | {"regression_labels": s.labels, "id": s.ids} for k, s in data.splits.items()}
        for part in value.values() if name == "marked" else ():
            part["available"] = np.ones((len(part["id"]), 3), dtype=int)
        (tmp_path / f"{name}.pkl").write_bytes(pickle.dumps(value))
    files = [load_data(tmp_path / f"{name}.pkl", standardise=True) for name in ("plain", "marked")]
    assert_same(*(trained(x, short, tmp_path / str(i)) for i, x in enumerate(files)))


def test_the_loss_of_recovery_is_taken_where_the_truth_is_known(data, tiny_config, monkeypatch):
    some, seen = incomplete(data), []
    model = tiny_model()
    stage = stages.diffusion_stage(model, some, changed(tiny_config, diffusion={"batch_size": 12}))
    stage.initialise()

    def losses(latents, available, generator, truth):
        assert not (available & ~truth).any()
        assert available.any(dim=1).all()
        seen.append(truth)
        return {"x": torch.zeros(())}

    monkeypatch.setattr(model.recoverer, "losses", losses)
    rows = torch.arange(20)
    stage.loss(rows, torch.Generator().manual_seed(0), None)
    assert torch.equal(seen.pop(), some.train.given(M)[rows])
    assert len(stage.validate()) == 2  # batches of the stage, not of the training
    assert torch.equal(torch.cat(seen), some.valid.given(M))


def test_closed_forms_and_fusion_use_complete_samples_only(data, tiny_config, monkeypatch):
    some, found = incomplete(data), {}
    monkeypatch.setattr(stages, "fit_encoders", lambda model, data, rows: found.update(encoders=rows))
    monkeypatch.setattr(
        stages, "fit_readout", lambda model, ridge, train, valid: found.update(train=train, valid=valid)
    )
    model = built()
    stage = stages.fusion_stage(model, some, tiny_config)
    stage.initialise()
    complete = {k: s.given(M).all(dim=1).numpy() for k, s in some.splits.items()}
    assert found["encoders"].tolist() == np.flatnonzero(complete["train"]).tolist()
    for name in ("train", "valid"):
        np.testing.assert_array_equal(found[name][1], data.splits[name].labels[complete[name]])
    assert stage.size == complete["train"].sum()
    assert len(stage.validate()) == complete["valid"].sum()


def test_adaptation_masks_stay_within_what_is_there(data, tiny_config, monkeypatch):
    some, masks, kept = incomplete(data), {}, {}

    def fill(model, latents, ids, patterns, seed, observed):
        cache = fill_cache(model, latents, ids, patterns, seed, observed)
        kept[len(ids)] = cache
        return cache

    monkeypatch.setattr(stages, "fill_cache", fill)
    model = tiny_model()
    stage = stages.adapt_stage(model, some, tiny_config)
    for split in (some.train, some.valid):
        available = kept[len(split)].available
        assert not (available & ~split.given(M)[:, None]).any()
        assert available.any(dim=2).all()
    original = model.refined

    def refined(latents, available):
        masks.setdefault(len(masks), available)
        return original(latents, available)

    monkeypatch.setattr(model, "refined", refined)
    stage.validate()
    assert torch.equal(masks[0], some.valid.given(M))  # the complete pattern is all that is there


@pytest.mark.parametrize("split", ["train", "valid"])
def test_two_complete_samples_are_needed(split, data, tiny_config, tmp_path):
    def marks(s):
        out = np.ones((len(s), 3), dtype=bool)
        out[1:, 1] = s is not data.splits[split]
        return out

    with pytest.raises(UserError, match=f"split '{split}': 1 samples are complete, training needs 2"):
        fit(tiny_model(), incomplete(data, marks=marks), tiny_config, tmp_path / "run")


def test_the_released_recipe_needs_complete_samples(data, tiny_config, tmp_path):
    with pytest.raises(UserError, match="recipe 'released' needs samples with all modalities"):
        fit(tiny_model(), incomplete(data), replace(tiny_config, recipe="released"), tmp_path / "run")


def test_tables_count_what_is_really_missing(data, model):
    some = incomplete(data)
    table = evaluate(model, some.test, ["fixed", ("random", 0.5)], [1])
    rate = table.groupby("case")["realised"].first()
    given = some.test.given(M)
    assert rate["+".join(M)] == pytest.approx((~given).double().mean().item())
    text = torch.where(given[:, :1], torch.tensor([[True, False, False]]), given)  # without text, all the rest
    assert rate["text"] == pytest.approx((~text).double().mean().item())
    assert rate["0.5"] > 0.5
    assert {"imder", "zero", "mean", "constant", "bayes"} == set(table["method"])
    assert table["mae"].notna().all()


def test_recovery_is_compared_with_the_truth_where_it_is_known(data, model):
    has = lacking(data.test)
    rows = np.flatnonzero(has.all(axis=1))
    some = incomplete(data)
    complete = some.test.complete()
    assert complete.ids == [data.test.ids[i] for i in rows]
    cut = MultimodalData(data.name, data.splits | {"train": some.train, "test": complete}, data.sha256, data.process)
    tables = [posterior_check(model, x, [("text",)], draws=3) for x in (some, cut)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    with pytest.raises(UserError, match="no sample has all of"):
        posterior_check(model, incomplete(data, marks=lambda s: np.arange(3) != np.zeros((len(s), 1))), [("audio",)])


def test_complete_data_are_not_copied(data):
    assert data.test.complete() is data.test
