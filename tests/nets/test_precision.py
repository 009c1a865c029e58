"""Precision of products: lower ones stay close to float32, and nothing outside a block changes."""

import pytest
import torch

from imder_lib import IMDer, evaluate, fit, load_data, model_preset, train_preset
from imder_lib.config import ModelConfig
from imder_lib.errors import UserError
from imder_lib.nets.precision import computing, usable
from imder_lib.settings import changed

SMALL = {"fusion": {"layers": 1, "heads": 2}, "joint": {"channels": 16, "blocks": 2}, "dim": 8,
         "unet": {"channels": (8, 8), "heads": 2, "refiner_blocks": 1}}  # fmt: skip
BRIEF = {"fusion": {"epochs": 1}, "diffusion": {"epochs": 1}, "adapt": {"epochs": 1}}


@pytest.fixture(scope="module")
def data():
    return load_data("synthetic", sizes={"train": 48, "valid": 16, "test": 16}, widths=dict.fromkeys("abc", 6), steps=8)


@pytest.mark.parametrize(("preset", "own"), [("kit", {}), ("released", {}), ("kit", {"recoverer": "regression"})])
def test_bfloat16_trains_and_predicts_close_to_float32(data, preset, own, tmp_path):
    """Rounding to 8 bits: predictions move by some percent of their spread, in a model of float32 weights."""
    config = model_preset("mosi", data.widths, preset, **SMALL, **own, precision="bfloat16", sampler={"steps": 4})
    model = fit(IMDer(config, seed=1), data, train_preset("mosi", **BRIEF), tmp_path).model
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    exact = IMDer(changed(config, precision="float32"))
    exact.load_state_dict(model.state_dict())
    tables = [evaluate(m, data.test, ["fixed"], draws=2, baselines=False) for m in (model, exact)]
    apart = (tables[0]["mae"] - tables[1]["mae"]).abs()
    assert 0 < apart.max() < 0.1


@pytest.mark.parametrize("recoverer", ["regression", "network", "mean", "zero"])
def test_every_recoverer_computes_in_bfloat16(data, recoverer):
    rules = {"rules": {"net": "unet", "condition_dropout": 0.0}} if recoverer == "network" else {}
    config = model_preset("mosi", data.widths, **SMALL, recoverer=recoverer, precision="bfloat16", **rules)
    table = evaluate(IMDer(config, seed=1).eval(), data.test, ["fixed"], baselines=False)
    assert table["mae"].notna().all()


def test_encoders_always_compute_in_float32(data):
    models = [IMDer(model_preset("mosi", data.widths, **SMALL, precision=p), seed=1) for p in ("float32", "bfloat16")]
    with computing("bfloat16", torch.device("cpu")):
        a, b = (model.encode(data.test.batch().features) for model in models)
    assert all(torch.equal(a[m], b[m]) and a[m].dtype == torch.float32 for m in a)


def test_nothing_outside_the_block_changes():
    x = torch.randn(4, 4)
    with computing("bfloat16", x.device):
        assert (x @ x).dtype == torch.bfloat16
        with computing("float32", x.device):
            assert (x @ x).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16
    assert (x @ x).dtype == torch.float32


def test_tf32_exists_on_cuda_only():
    assert usable("tf32", torch.device("cpu")) == "float32"
    assert usable("tf32", torch.device("cuda")) == "tf32"
    assert usable("bfloat16", torch.device("cpu")) == "bfloat16"


def test_unknown_precision_is_an_error():
    with pytest.raises(UserError, match="precision must be one of"):
        ModelConfig({"a": 2, "b": 3}, precision="half")
