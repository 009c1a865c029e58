"""Odd models and checkpoints by the thousand: equal values come back, or one UserError. ``make fuzz`` runs more."""

import json
import shutil
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from odd import CHANGES, CUT, FEW, JSON, damaged, tried

from imder_lib import IMDer, ModelConfig, TrainConfig
from imder_lib.config import FusionConfig, StageConfig
from imder_lib.experiment.checkpoint import CHECKPOINT, load_model, save_model, write_checkpoint
from imder_lib.experiment.trainer import Learner, Stage, Trainer
from imder_runs.pretrain import load_pretrained, read_pretrained

SMALL = ModelConfig({"a": 2, "b": 2}, dim=8, fusion=FusionConfig(layers=1), recoverer="zero")


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A saved model, its state dict as .pt, and a checkpoint of its training."""
    folder = tmp_path_factory.mktemp("saved")
    model = IMDer(SMALL, seed=0)
    save_model(model, folder / "model.safetensors")
    torch.save(model.state_dict(), folder / "model.pt")
    trainer = Trainer(model, TrainConfig(), folder, False, {})
    trainer.run(stage(model))
    trainer.done.clear()
    learner = Learner(stage(model), model, TrainConfig())
    trainer._save(learner.state_dict())
    return folder


def stage(model) -> Stage:
    zero = torch.zeros(1)
    return Stage("fusion", StageConfig(1, batch_size=1), [model.fusion], lambda *_: zero.sum(), lambda: zero, size=1)


@FEW
@given(key=st.sampled_from([*ModelConfig.__dataclass_fields__, "other"]), value=JSON, gone=st.booleans())
def test_the_settings_of_a_model(tmp_path, saved, key, value, gone):
    config = json.loads((saved / "model.json").read_text())
    if gone:
        config.pop(key, None)
    else:
        config[key] = value
    shutil.copy(saved / "model.safetensors", tmp_path / "m.safetensors")
    (tmp_path / "m.json").write_text(json.dumps(config))
    model = tried(load_model, tmp_path / "m.safetensors")
    if model:
        before = torch.load(saved / "model.pt", weights_only=True)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@FEW
@given(name=st.sampled_from(["model.safetensors", "model.json"]), changes=CHANGES, cut=CUT)
def test_a_damaged_model(tmp_path, saved, name, changes, cut):
    for p in saved.glob("model.*"):
        shutil.copy(p, tmp_path / p.name)
    (tmp_path / name).write_bytes(damaged((saved / name).read_bytes(), changes, cut))
    tried(load_model, tmp_path / "model.safetensors")


TENSORS = JSON | st.sampled_from([torch.zeros(()), torch.ones(2), torch.zeros(2, 2, dtype=torch.int8), {"model": 1}])


@FEW
@given(value=TENSORS, inside=st.sampled_from(["", "model", "state_dict"]), changes=CHANGES, cut=CUT)
@example(value=[], inside="", changes=[(65535, 2)], cut=0)
def test_another_pretrained_model(tmp_path, saved, value, inside, changes, cut):
    path, model = tmp_path / "odd.pt", load_model(saved / "model.safetensors")
    torch.save({inside: value} if inside else value, path)
    path.write_bytes(damaged(path.read_bytes(), changes, cut))
    tried(lambda: load_pretrained(model, read_pretrained(path)))


@FEW
@given(changes=CHANGES, cut=CUT, suffix=st.sampled_from([".pt", ".safetensors"]))
def test_a_damaged_pretrained_model(tmp_path, saved, changes, cut, suffix):
    path, model = tmp_path / f"odd{suffix}", load_model(saved / "model.safetensors")
    path.write_bytes(damaged((saved / f"model{suffix}").read_bytes(), changes, cut))
    tried(lambda: load_pretrained(model, read_pretrained(path)))


def resumed(folder: Path, saved: Path) -> None:
    model = IMDer(SMALL, seed=0)
    trainer = Trainer(model, TrainConfig(), folder, True, {})
    if "fusion" not in trainer.done:
        with redirect_stdout(StringIO()):
            trainer.run(stage(model))


@FEW
@given(changes=CHANGES, cut=CUT)
def test_a_damaged_checkpoint(tmp_path, saved, changes, cut):
    (tmp_path / CHECKPOINT).write_bytes(damaged((saved / CHECKPOINT).read_bytes(), changes, cut))
    tried(resumed, tmp_path, saved)


@FEW
@given(key=st.sampled_from(["model", "config", "done", "history", "limits", "stage"]), inner=st.integers(0, 9),
       value=TENSORS, gone=st.booleans())  # fmt: skip
@example(key="stage", inner=4, value=[None], gone=False)
def test_an_odd_checkpoint(tmp_path, saved, key, inner, value, gone):
    state = torch.load(saved / CHECKPOINT, weights_only=True)
    place = state[key] if isinstance(state[key], dict) and state[key] and inner else state
    key = sorted(place)[inner % len(place)] if place is not state else key
    if gone:
        place.pop(key)
    else:
        place[key] = value
    write_checkpoint(tmp_path, state)
    tried(resumed, tmp_path, saved)
