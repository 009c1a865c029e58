"""fit: both recipes reduce the loss, write their files, and give the same results after an interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import tiny_model

from imder_lib import IMDer, TrainConfig, UserError, changed, evaluate, fit, load_data, load_model
from imder_lib.diffusion.samplers import Sampler
from imder_lib.experiment import trainer as trainer_module


def weights(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("recipe", ["staged", "released"])
@pytest.mark.parametrize("preset", ["kit", "released"])
def test_recipe_runs_and_writes_its_files(recipe, preset, data, tiny_config, tmp_path):
    result = fit(tiny_model(preset=preset), data, replace(tiny_config, recipe=recipe), tmp_path / "run")
    stages = {"staged": ["fusion", "diffusion"], "released": ["fusion", "joint"]}[recipe]
    stages += ["adapt"] if (recipe, preset) == ("staged", "released") else []  # it has refiners
    assert result.history["stage"].unique().tolist() == stages
    assert result.history[["train", "valid"]].notna().all().all()
    written = pd.read_csv(tmp_path / "run" / "history.csv")
    assert written.pop("epochs").eq(2).all()  # at most, in each stage
    pd.testing.assert_frame_equal(written, result.history)
    assert same(weights(load_model(result.path)), weights(result.model))
    names = sorted(p.name for p in (tmp_path / "run").iterdir())
    assert names == ["checkpoint.pt", "history.csv", "model.json", "model.safetensors"]


def test_training_lowers_the_loss(data, tiny_config, tmp_path):
    config = changed(tiny_config, fusion={"epochs": 8}, diffusion={"epochs": 8})
    history = fit(tiny_model(preset="released"), data, config, tmp_path).history
    for stage in ("fusion", "diffusion"):
        train = history[history["stage"] == stage]["train"]
        assert train.iloc[-1] < 0.9 * train.iloc[0]


def test_each_stage_trains_only_its_parts(data, tiny_config, tmp_path):
    model = tiny_model(preset="released")
    initial = weights(model)
    fit(model, data, tiny_config, tmp_path, until="fusion")
    first = weights(model)
    changed = {k.split(".")[0] for k in first if not torch.equal(first[k], initial[k])}
    assert changed == {"encoders", "fusion"}
    fit(model, data, tiny_config, tmp_path, until="diffusion", resume=True)
    second = weights(model)
    assert {k.split(".")[0] for k in first if not torch.equal(first[k], second[k])} == {"recoverer"}
    assert all(
        torch.equal(second[k], initial[k]) for k in initial if k.endswith("embed.W")
    )  # Fourier frequencies are fixed
    fit(model, data, tiny_config, tmp_path, resume=True)
    third = weights(model)
    assert {k.split(".")[0] for k in third if not torch.equal(third[k], second[k])} == {"refiners", "fusion"}


def test_stage_adapt_is_left_out_where_draws_have_nothing_to_teach(data, tiny_config, tmp_path):
    marks = np.ones((len(data.train), 3), dtype=bool)
    marks[0, 1] = False
    incomplete = replace(data, splits=data.splits | {"train": replace(data.train, available=marks)})
    cases = {
        "draws": (tiny_model(), data, tiny_config, False),
        "draws, refined": (tiny_model(refine=True), data, tiny_config, True),
        "draws, incomplete samples": (tiny_model(), incomplete, tiny_config, True),
        "draws, some hidden": (tiny_model(), data, replace(tiny_config, supervision="observed"), True),
        "one value": (tiny_model(recoverer="regression"), data, tiny_config, True),
        "zeros": (tiny_model(recoverer="zero"), data, tiny_config, True),
    }
    own = tiny_model()
    own.recoverer.posterior = False  # as of a recoverer that ignores what is available
    cases["draws of something else"] = (own, data, tiny_config, True)
    for name, (model, samples, config, adapted) in cases.items():
        before = weights(fit(model, samples, config, tmp_path / name, until="diffusion").model.fusion)
        result = fit(model, samples, config, tmp_path / name, resume=True)
        assert result.path is not None
        assert ("adapt" in result.history["stage"].tolist()) is adapted, name
        assert same(before, weights(result.model.fusion)) is not adapted, name


class Killed(BaseException):
    pass


def test_a_stage_that_was_cut_and_is_now_left_out_is_refused(data, tiny_config, tmp_path, monkeypatch):
    """Its checkpoint holds weights in the middle of that stage."""
    original = trainer_module.write_checkpoint

    def save_then_die(folder, state):
        original(folder, state)
        if state["history"][-1]["stage"] == "adapt":
            raise Killed

    older = tiny_model()
    older.recoverer.posterior = False
    monkeypatch.setattr(trainer_module, "write_checkpoint", save_then_die)
    with pytest.raises(Killed):
        fit(older, data, tiny_config, tmp_path)
    monkeypatch.setattr(trainer_module, "write_checkpoint", original)
    with pytest.raises(UserError, match=r"other settings \(model\.sampler"):
        fit(tiny_model(), data, tiny_config, tmp_path, resume=True)


@pytest.mark.parametrize("recipe", ["staged", "released"])
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_resumed_run_gives_exactly_the_same_results(recipe, after, data, tiny_config, tmp_path, monkeypatch):
    config = replace(tiny_config, recipe=recipe)
    whole = fit(tiny_model(), data, config, tmp_path / "whole")
    saves = []

    def save_then_die(*args):
        original(*args)
        saves.append(1)
        if len(saves) == after:
            raise Killed

    original = trainer_module.write_checkpoint
    monkeypatch.setattr(trainer_module, "write_checkpoint", save_then_die)
    with pytest.raises(Killed):
        fit(tiny_model(), data, config, tmp_path / "cut")
    monkeypatch.setattr(trainer_module, "write_checkpoint", original)
    resumed = fit(tiny_model(seed=9), data, config, tmp_path / "cut", resume=True)
    assert same(weights(resumed.model), weights(whole.model))
    a, b = (evaluate(r.model, data.test, ["fixed"], [1]) for r in (whole, resumed))
    pd.testing.assert_frame_equal(a, b, check_exact=True)
    pd.testing.assert_frame_equal(whole.history.drop(columns="seconds"), resumed.history.drop(columns="seconds"))


SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell passes on an ignored one
sys.path.insert(0, {tests!r})
from conftest import small_data, tiny_model
from imder_lib import TrainConfig, changed, fit
from imder_lib.experiment import trainer
write = trainer.write_checkpoint
trainer.write_checkpoint = lambda *args: (write(*args), time.sleep(2))  # it must not end before the signal comes
fit(tiny_model(), small_data(), changed(TrainConfig(seed=3, batch_size=16), **{stages!r}), {out!r})
"""
STAGES = {"fusion": {"epochs": 15}, "diffusion": {"epochs": 1}, "adapt": {"epochs": 1, "patterns": 1}}


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_can_be_resumed(sign, data, tmp_path):
    """In another process, with the weights of a training that nobody has interrupted."""
    out, config = tmp_path / "cut", changed(TrainConfig(seed=3, batch_size=16), **STAGES)
    code = SCRIPT.format(tests=str(Path(__file__).parents[1]), stages=STAGES, out=str(out))
    cut = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while cut.poll() is None and not (out / "checkpoint.pt").exists():
        time.sleep(0.02)
    os.kill(cut.pid, sign)
    assert cut.wait() != 0
    fit(tiny_model(), data, config, out, resume=True)
    assert same(
        weights(load_model(out / "model.safetensors")),
        weights(fit(tiny_model(), data, config, tmp_path / "whole").model),
    )


def test_bad_calls_raise(data, tiny_config, tmp_path):
    fit(tiny_model(), data, tiny_config, tmp_path / "run", until="fusion")
    with pytest.raises(UserError, match="resume=True"):
        fit(tiny_model(), data, tiny_config, tmp_path / "run")
    with pytest.raises(UserError, match=r"other settings \(diffusion.epochs\)"):
        fit(tiny_model(), data, changed(tiny_config, diffusion={"epochs": 9}), tmp_path / "run", resume=True)
    with pytest.raises(UserError, match="of another model"):
        fit(tiny_model(net="unet"), data, tiny_config, tmp_path / "run", resume=True)
    with pytest.raises(UserError, match="until"):
        fit(tiny_model(), data, tiny_config, tmp_path / "new", until="joint")
    with pytest.raises(UserError, match="widths"):
        fit(tiny_model({"text": 12, "audio": 5, "vision": 9}), data, tiny_config, tmp_path / "new")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        fit(tiny_model(), data, tiny_config, tmp_path / "file" / "run")
    (tmp_path / "run" / "checkpoint.pt").write_text("{")
    with pytest.raises(UserError, match="no checkpoint"):
        fit(tiny_model(), data, tiny_config, tmp_path / "run", resume=True)


def test_two_and_four_modalities(tiny_config, tmp_path):
    from imder_lib import load_data

    for widths in ({"text": 6, "face": 5}, {"text": 6, "audio": 4, "vision": 5, "eeg": 7}):
        data = load_data("synthetic", sizes={"train": 20, "valid": 8, "test": 8}, widths=widths, steps=1)
        result = fit(tiny_model(widths), data, tiny_config, tmp_path / str(len(widths)))
        table = evaluate(result.model, data.test, ["fixed", ("random", 0.4)], [1, 2])
        assert len(table) == (2 ** len(widths) - 1 + 1) * 2 * 5
        assert table["mae"].notna().all()


@pytest.mark.parametrize(("split", "message"), [("train", r"training samples [\d, ]+\.\.\."), ("valid", "number 3 of")])
def test_training_stops_at_a_loss_that_is_not_finite(split, message, data, tiny_config, tmp_path):
    splits = {k: s.first(len(s)) for k, s in data.splits.items()}
    splits[split].features["text"] = splits[split].features["text"].copy()
    splits[split].features["text"][3] = np.float32(1e30)
    broken = replace(data, splits=splits)
    with pytest.raises(UserError, match=f"stage fusion, epoch 1: .*{message}.*imder check"):
        fit(tiny_model(), broken, tiny_config, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_a_run_of_other_data_or_another_model_is_not_resumed(data, tiny_config, tmp_path):
    fit(tiny_model(), data, tiny_config, tmp_path, until="fusion")
    other = load_data("synthetic", sizes={"train": 48, "valid": 16, "test": 24}, widths=data.widths, steps=10, seed=1)
    with pytest.raises(UserError, match=r"other settings \(data\)"):
        fit(tiny_model(), other, tiny_config, tmp_path, resume=True)
    model = IMDer(replace(tiny_model().config, precision="bfloat16"))
    with pytest.raises(UserError, match=r"other settings \(model\.precision\)"):
        fit(model, data, tiny_config, tmp_path, resume=True)
    swapped = IMDer(replace(tiny_model().config, widths=dict(reversed(data.widths.items()))))
    with pytest.raises(UserError, match=r"other settings \(model\.modalities\)"):
        fit(swapped, data, tiny_config, tmp_path, resume=True)
    longer = IMDer(replace(tiny_model().config, sampler=Sampler(steps=9)))
    fit(longer, data, tiny_config, tmp_path, resume=True)  # draws train nothing here
    some = replace(tiny_config, supervision="observed")
    fit(tiny_model(), data, some, tmp_path / "observed", until="fusion")
    with pytest.raises(UserError, match=r"other settings \(model\.sampler\.steps\)"):
        fit(longer, data, some, tmp_path / "observed", resume=True)
    state = torch.load(tmp_path / "checkpoint.pt")
    del state["config"]["model"], state["config"]["data"]
    torch.save(state, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="was trained by an earlier version of the kit"):
        fit(tiny_model(), data, tiny_config, tmp_path, resume=True)
    fit(tiny_model(preset="released"), data, tiny_config, tmp_path / "released", until="fusion")
    model = IMDer(replace(tiny_model(preset="released").config, sampler=Sampler("em", 4, "released")))
    with pytest.raises(UserError, match=r"other settings \(model\.sampler\.steps\)"):
        fit(model, data, tiny_config, tmp_path / "released", resume=True)


def test_the_released_recipe_prepares_the_recoverer(data, tiny_config, tmp_path):
    model = fit(tiny_model(), data, replace(tiny_config, recipe="released"), tmp_path).model
    assert (model.recoverer.standardizer.std != 1).any()
    with pytest.raises(UserError, match="recipe 'released' trains on all modalities"):
        replace(tiny_config, recipe="released", supervision="observed")


def test_without_epochs_of_adapt_nothing_is_recovered(data, tiny_config, tmp_path, capsys):
    config = changed(tiny_config, fusion={"epochs": 1}, diffusion={"epochs": 1}, adapt={"epochs": 0})
    fit(tiny_model(preset="released"), data, config, tmp_path)
    assert "recovering" not in capsys.readouterr().out


def test_numbers_of_numpy_become_plain_ones():
    config = changed(TrainConfig(seed=np.int64(3), clip=np.float64(0.5)), diffusion={"lr": np.float32(0.5)})
    assert [type(x) for x in (config.seed, config.clip, config.diffusion.lr)] == [int, float, float]
    dropout = {"attention_dropout": {"text": np.float32(0.5)}}
    model = changed(tiny_model().config, widths={"text": np.int64(4), "audio": 5}, fusion=dropout)
    json.dumps(asdict(model))
    with pytest.raises(UserError, match=r"audio must be a whole number, got 5\.0"):
        replace(model, widths={"text": 4, "audio": 5.0})
    with pytest.raises(UserError, match="heads must be a whole number of at least 1, got 0"):
        changed(model, widths={"heads": 4, "text": 5}, fusion={"heads": 0})


@pytest.mark.parametrize(
    "bad", [{"clip": 0.0}, {"average": 1.0}, {"early_stop": 0}, {"patience": -1}, {"batch_size": 0}]
)
def test_settings_out_of_range(bad):
    with pytest.raises(UserError, match=next(iter(bad))):
        TrainConfig(**bad)
