"""The released network against all entries of golden_mosi.npz: 1e-5 for components, 1e-3 for whole passes."""

import json
import re
from dataclasses import asdict
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import tiny_model
from golden import DATA, inputs, released_state

from imder_lib import load_model, load_released
from imder_lib.diffusion.denoiser import sample_condition
from imder_lib.diffusion.losses import dsm_loss
from imder_lib.diffusion.samplers import Sampler
from imder_lib.errors import UserError
from imder_lib.experiment.checkpoint import read_checkpoint
from imder_lib.model.released import LETTER, released_name
from imder_runs.pretrain import read_pretrained

GOLDEN = dict(np.load(DATA / "golden_mosi.npz"))
MODALITIES = ("text", "audio", "vision")
X = inputs()
COMPONENTS = [k for k in GOLDEN if "/" not in k and not k.startswith("em_")]
PATTERNS = ["l", "v", "a", "lv", "la", "va", "lva"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("pt") / "released.pth"
    torch.save({f"Model.{k}": v for k, v in released_state("mosi").items()}, path)
    return load_released(path, preset="mosi")


def error(value, name) -> float:
    """max |value - golden| / max |golden|."""
    golden = GOLDEN[name].astype(np.float64)
    value = np.asarray(value.detach() if torch.is_tensor(value) else value, dtype=np.float64)
    assert value.shape == golden.shape
    return np.abs(value - golden).max() / max(np.abs(golden).max(), 1e-30)


def component(model, name: str) -> torch.Tensor:
    x, c, t = X["score_x"], X["score_cond"], torch.linspace(0.01, 1, 4)
    names = {v: k for k, v in LETTER.items()}
    cross = model.fusion.cross["text<audio"]
    xt, ct = x.transpose(1, 2), c.transpose(1, 2)  # (B, T, D); the golden layout is (T, B, D)
    q_zero, k_zero = xt.clone(), ct.clone()
    q_zero[0, 3, 0] = k_zero[0, 3, 0] = 0
    if name == "marginal_std":
        return model.recoverer.sde.std(t)
    if name == "diffusion_coeff":
        return model.recoverer.sde.g(t)
    if name == "dsm_loss_l":
        torch.manual_seed(100)
        return dsm_loss(partial(model.recoverer.score, "text"), model.recoverer.sde, x, c)
    if name == "score_l_small":
        return model.recoverer.score("text", x * 1e-3, t, c * 1e-3)
    if name == "encoder_self":
        return model.fusion.memory["vision"](torch.cat([xt, ct], dim=-1)).transpose(0, 1)
    if name.startswith("encoder_cross"):
        q, k = {
            "encoder_cross": (xt, ct),
            "encoder_cross_zero_first_channel": (q_zero, ct),
            "encoder_cross_zero_first_channel_of_key": (xt, k_zero),
            "encoder_cross_small": (xt * 1e-3, ct * 1e-3),
        }[name]
        return cross(q, k).transpose(0, 1)
    kind, letters = re.match(r"(proj|score|rec|cat)_(\w+?)(?:_uncond)?$", name).groups()
    m = names[letters[0]]
    if kind == "proj":
        return model.encode(X)[m]
    if kind == "rec":
        return model.refiners[m](x)
    if kind == "cat":
        return model.recoverer.conditions["+".join(names[x] for x in letters)](torch.cat([x, c], dim=1))
    return model.recoverer.score(m, x, t, None if name.endswith("_uncond") else c)


@pytest.mark.parametrize("name", COMPONENTS)
def test_component(model, name):
    assert error(component(model, name), name) <= 1e-5


@pytest.mark.parametrize("steps", [5, 100])
def test_sampler(model, steps):
    torch.manual_seed(100 + steps)
    denoise = model.recoverer.denoiser("audio")
    x = Sampler("em", steps, "released").draw(sample_condition(denoise, "fresh"), X["score_cond"], X["score_cond"])
    assert error(x, f"em_{steps}") <= 1e-3


def test_padded_frames(model):
    x = {k: v.clone() for k, v in X.items()}
    x["audio"][:, 30:] = x["vision"][:, 30:] = 0
    out = model(x, torch.ones(4, 3, dtype=torch.bool))
    assert error(out.prediction, "padded_lva/M") <= 1e-3
    assert error(torch.cat(list(out.vectors.values()), dim=1), "padded_lva/Feature_f") <= 1e-3


@pytest.mark.parametrize("letters", PATTERNS)
def test_whole_forward(model, letters):
    available = torch.tensor([[LETTER[m] in letters for m in MODALITIES]] * 4)
    bits = {"text": 1, "vision": 2, "audio": 4}
    torch.manual_seed(100 + sum(b for m, b in bits.items() if LETTER[m] in letters))
    model.zero_grad()
    out = model(X, available, with_losses=True)
    refine = sum(out.losses[f"refine.{m}"] for m in MODALITIES)
    score = sum(out.losses[f"score.{m}"] for m in MODALITIES)
    total = F.l1_loss(out.prediction, X["label"]) + 0.1 * (score + refine)
    total.backward()

    found = {"M": out.prediction, "loss_rec": refine, "total_loss": total}
    found |= {f"loss_score_{LETTER[m]}": out.losses[f"score.{m}"] for m in MODALITIES}
    short = {"text": "t", "audio": "a", "vision": "v"}
    found |= {f"Feature_{short[m]}": out.vectors[m] for m in MODALITIES}
    found["Feature_f"] = torch.cat(list(out.vectors.values()), dim=1)
    entries = {k for k in GOLDEN if k.startswith(f"avail_{letters}/") and not k.endswith("grad_norms")}
    assert {f"avail_{letters}/{k}" for k in found} == entries  # all entries of the file are checked
    for k, v in found.items():
        assert error(v, f"avail_{letters}/{k}") <= 1e-3, k

    squares: dict[str, float] = {}
    for name, p in model.named_parameters():
        if p.grad is not None:
            top = released_name(name, model.config).split(".")[0]
            squares[top] = squares.get(top, 0.0) + float(p.grad.double().square().sum())
    golden = json.loads(str(GOLDEN[f"avail_{letters}/grad_norms"]))
    assert squares.keys() == golden.keys()
    for top, norm in golden.items():
        assert squares[top] ** 0.5 == pytest.approx(norm, rel=1e-3), top


def test_every_golden_entry_is_checked():
    checked = set(COMPONENTS) | {"em_5", "em_100", "padded_lva/M", "padded_lva/Feature_f"}
    rest = {k for k in GOLDEN if k not in checked}
    assert all(re.match(rf"avail_({'|'.join(PATTERNS)})/", k) for k in rest)


def test_all_names_of_the_mosei_checkpoint_are_known(tmp_path):
    path = tmp_path / "mosei.pth"
    torch.save(released_state("mosei"), path)
    model = load_released(path, preset="mosei")
    assert model.config.fusion.layers == 6


def broken(state, change):
    name = "proj_a.weight"
    if change == "missing":
        del state[name]
    elif change == "extra":
        name = "proj_x.weight"
        state[name] = torch.zeros(1)
    else:
        state[name] = torch.zeros(32, 7, 3)
    return name


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_a_checkpoint_of_wrong_names_or_shapes_raises(tmp_path, change):
    state = released_state("mosi")
    name = broken(state, change)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UserError, match=f"{change}.*{name}|{name}.*{change}"):
        load_released(tmp_path / "x.pth", preset="mosi")


def test_old_buffers_are_ignored(tmp_path):
    state = released_state("mosi")
    assert any(k.endswith("._float_tensor") for k in state)
    torch.save(state, tmp_path / "x.pth")
    assert load_released(tmp_path / "x.pth", preset="mosi").config.fusion.layers == 4


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict"])
def test_a_training_checkpoint_and_the_prefix_of_data_parallel(tmp_path, key):
    state = released_state("mosi")
    nested = {key: {f"module.Model.{k}": v for k, v in state.items()}, "optimizer": {"lr": 0.1}, "epoch": 3}
    torch.save(nested, tmp_path / "x.pth")
    torch.save(state, tmp_path / "plain.pth")
    a, b = (load_released(tmp_path / name).state_dict() for name in ("x.pth", "plain.pth"))
    assert all(torch.equal(a[k], b[k]) for k in b)


def test_values_that_are_not_finite_are_refused(tmp_path):
    state = released_state("mosi")
    state["proj_a.weight"][0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth: tensor proj_a\.weight has values that are not finite"):
        load_released(tmp_path / "x.pth")


BAD_FILES = {
    "git lfs pull": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 440\n",
    "is empty": b"",
    "holds only zeros": bytes(5000),
    "is damaged": b"<html>not found</html>",
}


@pytest.mark.parametrize("message", BAD_FILES)
def test_a_bad_file_is_named_without_the_advice_of_a_library(tmp_path, message):
    for name, read in {
        "x.pth": lambda p: read_pretrained(p),
        "x.safetensors": lambda p: read_pretrained(p),
        "checkpoint.pt": lambda p: read_checkpoint(p.parent, torch.nn.Linear(1, 1)),
        "model.safetensors": load_model,
    }.items():
        path = tmp_path / name
        path.write_bytes(BAD_FILES[message])
        (tmp_path / "model.json").write_text(json.dumps(asdict(tiny_model().config)))
        with pytest.raises(UserError, match=message) as stop:
            read(path)
        assert "weights_only" not in str(stop.value)


def test_other_objects_in_a_checkpoint_are_refused(tmp_path):
    torch.save({"model": torch.nn.Linear(1, 1)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"holds objects other than tensors: save the state dict alone$"):
        load_released(tmp_path / "x.pth")
