"""Configurations: defaults of the presets, changes of parts, and bad settings."""

import json
from dataclasses import asdict

import pytest
from conftest import tiny_model

from imder_lib import TrainConfig, UserError, changed, load_model, model_preset, train_preset
from imder_lib.config import AdaptStageConfig, StageConfig
from imder_lib.experiment.checkpoint import save_model


def test_a_change_of_a_part_keeps_its_other_fields():
    mosei = model_preset("mosei", fusion={"heads": 4}, sampler={"steps": 4})
    assert (mosei.fusion.heads, mosei.fusion.layers, mosei.fusion.readout) == (4, 6, True)
    assert (mosei.sampler.steps, mosei.sampler.name) == (4, model_preset("mosi").sampler.name)
    train = train_preset("mosei", adapt={"patterns": 2})
    assert train.adapt == AdaptStageConfig(patterns=2)
    assert changed(train, adapt={"patterns": 0}) == train_preset("mosei")
    assert changed(mosei, unet={"channels": [8, 8]}).unet.channels == (8, 8)  # a list, as in a file


def test_a_stage_has_the_batch_size_of_all_or_its_own():
    train = train_preset("mosei", adapt={"batch_size": 7})
    assert [train.stage(s).batch_size for s in ("fusion", "diffusion", "adapt", "joint")] == [128, 128, 7, 128]
    assert [TrainConfig().stage(s).batch_size for s in ("fusion", "diffusion")] == [32, 128]


@pytest.mark.parametrize(("epochs", "least_steps", "batches", "expected"),
                         [(10, 0, 5, 10), (10, 80, 5, 16), (10, 500, 5, 30), (0, 500, 5, 0)])  # fmt: skip
def test_small_data_get_more_epochs(epochs, least_steps, batches, expected):
    own = {"epochs": epochs, "least_steps": least_steps}
    train = train_preset("mosi", diffusion=own, adapt=own)
    assert [train.stage(name).epochs_of(batches) for name in ("diffusion", "adapt")] == [expected] * 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: train_preset("mosi", fusion={"epoch": 2}), "StageConfig has no field 'epoch': did you mean epochs?"),
        (lambda: train_preset("mosi", fusion_epochs=2), "TrainConfig has no field 'fusion_epochs'"),
        (lambda: train_preset("mosi", fusion=2), "fusion must be a StageConfig, got 2"),
        (lambda: train_preset("mosi", fusion={"epochs": "many"}), "epochs must be a whole number, got 'many'"),
        (lambda: train_preset("mosi", diffusion={"lr": 0}), "lr > 0, got 100, 128, 0 and 0"),
        (lambda: train_preset("mosi", batch_size=0), "batch_size must be a whole number of at least 1, got 0"),
        (lambda: train_preset("mosi", adapt={"least_steps": -1}), "least_steps must be >= 0"),
        (lambda: train_preset("mosi", recipe="both"), r"recipe must be one of \('staged', 'released'\), got 'both'"),
        (lambda: model_preset("mosi", layers=2), "ModelConfig has no field 'layers'"),
        (lambda: model_preset("mosi", mask_padding=1), "mask_padding must be true or false, got 1"),
        (lambda: model_preset("mosi", rules={"net": "tree"}), "net must be one of"),
        (lambda: StageConfig(True), "epochs must be a whole number, got True"),
    ],
)
def test_a_bad_setting_is_one_error(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_a_saved_model_has_its_configuration(tmp_path):
    model = tiny_model(preset="released")
    save_model(model, tmp_path / "a.safetensors")
    assert load_model(tmp_path / "a.safetensors").config == model.config
    old = {k: v for k, v in asdict(model.config).items() if k != "fusion"} | {"heads": 8}
    (tmp_path / "a.json").write_text(json.dumps(old))
    with pytest.raises(UserError, match=r"no model can be read from .*\(ModelConfig has no field 'heads'"):
        load_model(tmp_path / "a.safetensors")
