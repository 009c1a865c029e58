"""Closed-form initialisation of encoders and readout, and training that keeps it."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import RidgeCV

from imder_course.decoding import Decoder
from imder_lib import IMDer, ModelConfig, changed, fit, load_data
from imder_lib.config import StageConfig
from imder_lib.data.schema import MultimodalData, Split
from imder_lib.experiment import trainer as trainer_module
from imder_lib.experiment.checkpoint import read_checkpoint
from imder_lib.experiment.closed_form import PENALTIES, fit_encoders, fit_readout
from imder_lib.experiment.stages import fusion_stage
from imder_lib.experiment.trainer import Stage, Trainer
from imder_lib.model.recovery import encode_split

SIZES = {"train": 96, "valid": 16, "test": 40}
WIDTHS = {"text": 12, "audio": 16, "vision": 20}  # narrower than D, as wide (no encoder), wider


def untrained(widths=WIDTHS, **changes):
    config = changed(ModelConfig(widths), dim=16, encoders="components", fusion={"layers": 1, "readout": True},
                     joint={"channels": 16, "blocks": 2}, sampler={"steps": 3})  # fmt: skip
    return IMDer(changed(config, **changes), seed=1).eval()


def gaussian(steps=4, **sizes):
    return load_data("gaussian", sizes=SIZES | sizes, widths=WIDTHS, steps=steps)


def wide_data(labels, hidden):
    """Noise, and vision (n, 4, 20) with hidden (n, k) in its directions of smallest variance, a tenth of the others."""
    rng, n, k = np.random.default_rng(0), *hidden.shape
    z = rng.standard_normal((n, 4, 20))
    z[..., -k:] = 0.1 * (hidden[:, None] + 0.5 * z[..., -k:])
    x = {"audio": rng.standard_normal((n, 4, 3)), "vision": z @ np.linalg.qr(rng.standard_normal((20, 20)))[0]}
    x = {m: v.astype(np.float32) for m, v in x.items()}
    return MultimodalData("wide", {s: Split(x, labels, [f"{s}{i}" for i in range(n)], 4) for s in SIZES}, "")


def frames(model, split, m):
    return encode_split(model, split)[m].transpose(1, 2).flatten(0, 1).double()


def weights(model):
    return {m: e.weight.detach() for m, e in model.encoders.items()}


def averages(model, split):
    return {m: x.mean(2).numpy() for m, x in encode_split(model, split).items()}


def test_a_modality_no_wider_than_dim_loses_nothing():
    data = gaussian(steps=9)
    scales = 10 ** np.linspace(-1, 1, 12, dtype=np.float32)
    for split in data.splits.values():
        split.features["text"][:] = scales * (split.features["text"] + 3)
    model = untrained()
    fit_encoders(model, data, torch.arange(96))
    assert set(model.encoders) == {"text", "vision"}
    back = Decoder(model, 9)(encode_split(model, data.test))
    for m in ("text", "audio"):
        np.testing.assert_allclose(back[m], data.test.features[m], rtol=1e-3, atol=1e-2)


def test_components_are_uncorrelated_ordered_and_of_mean_variance_one():
    data, model = gaussian(steps=9), untrained()
    fit_encoders(model, data, torch.arange(96))
    text, vision = (frames(model, data.train, m) for m in ("text", "vision"))
    assert not text[:, 12:].any()
    covariances = [torch.cov(text[:, :12].T, correction=0), torch.cov(vision[:, 1:].T, correction=0)]
    for c in covariances:
        assert (c - c.diag().diag()).abs().max() < 1e-4 * c.diag().max()
        assert (c.diag().diff() < 1e-6).all()
    assert covariances[0].diag().mean().item() == pytest.approx(1, abs=1e-4)
    assert vision[:, 0].unflatten(0, (96, -1)).mean(1).std(correction=0).item() == pytest.approx(1, abs=1e-3)


def test_other_rows_and_padding_are_not_read():
    found = []
    for other in (False, True):
        data, model = gaussian(steps=9), untrained(mask_padding=True)
        data.train.lengths = {m: np.full(96, 7) for m in WIDTHS}
        for x in data.train.features.values():
            x[:, 7:] = 1e3 if other else 0
            x[80:] = 1e3 if other else x[80:]
        data.train.labels[80:] += 1e3 * other
        fit_encoders(model, data, torch.arange(80))
        found.append(weights(model))
    assert all(torch.equal(found[0][m], found[1][m]) for m in found[0])


def test_constant_features_are_ignored():
    data, model = gaussian(), untrained()
    for m in ("text", "vision"):
        data.train.features[m][..., 3] = 7.0
    fit_encoders(model, data, torch.arange(96))
    for w in weights(model).values():
        assert w.isfinite().all()
        assert not w[:, 3].any()
        assert w[:, :3].any()


def test_a_wide_modality_keeps_the_direction_of_the_label():
    labels = np.random.default_rng(1).standard_normal(400).astype(np.float32)
    data, model = wide_data(labels, labels[:, None]), untrained({"audio": 3, "vision": 20})
    fit_encoders(model, data, torch.arange(400))
    kept, whole = averages(model, data.train)["vision"], data.train.features["vision"].mean(1)
    r2 = [RidgeCV(PENALTIES).fit(z, labels).score(z, labels) for z in (kept, kept[:, 1:], whole)]
    assert r2[0] > 0.98 * r2[2] > 0.8
    assert r2[1] < 0.5 * r2[0]  # the components alone lose it


def test_a_wide_modality_keeps_a_channel_for_each_class():
    classes = np.random.default_rng(1).integers(3, size=400)
    hot = np.eye(3)[classes]
    data = wide_data(classes, 3 * hot)
    model = untrained({"audio": 3, "vision": 20}, fusion={"outputs": 3, "readout": False})
    fit_encoders(model, data, torch.arange(400))
    kept, whole = averages(model, data.train)["vision"], data.train.features["vision"].mean(1)
    hits = [RidgeCV(PENALTIES).fit(z, hot).predict(z).argmax(1) == classes for z in (kept[:, :3], kept[:, 3:], whole)]
    right, without, best = (h.mean() for h in hits)
    assert right > best - 0.02 > 0.9
    assert without < 0.8 * right


@pytest.mark.parametrize("steps", [1, 9])
def test_an_untrained_model_predicts_like_ridge_regression(steps, tiny_config):
    data, model, rng = gaussian(steps, train=200, valid=50), untrained(), np.random.default_rng(0)
    w = rng.standard_normal(48)
    for s in data.splits.values():
        means = np.concatenate([x.mean(1) for x in s.features.values()], axis=1)
        s.labels[:] = means @ w + rng.standard_normal(len(s))
    fusion_stage(model, data, tiny_config).initialise()
    assert not any(p.any() for p in model.fusion.readout.network.parameters())  # the regression was better
    std = {m: x.std(axis=(0, 1)) for m, x in data.train.features.items()}
    train, test = (
        np.concatenate([x.mean(1) / std[m] for m, x in s.features.items()], axis=1) for s in (data.train, data.test)
    )
    ridge = RidgeCV(PENALTIES).fit(train, data.train.labels)  # on features: the encoders lose nothing of it
    with torch.no_grad():
        predicted = model.fusion(encode_split(model, data.test))[0][:, 0].numpy()
    np.testing.assert_allclose(predicted, ridge.predict(test), atol=1e-3)


def test_the_readout_network_is_used_for_a_nonlinear_label():
    rng, model = np.random.default_rng(0), untrained()
    x = {name: rng.standard_normal((n, 48)).astype(np.float32) + 2 for name, n in (("train", 2000), ("valid", 300))}
    y = {name: (v[:, 3] - 2) * (v[:, 20] - 2) for name, v in x.items()}
    nothing = {m: np.zeros((1, w)) for m, w in WIDTHS.items()}, np.zeros(1)
    fit_readout(model, nothing, (x["train"], y["train"]), (x["valid"], y["valid"]))
    assert not any(p.any() for p in model.fusion.readout.linear.parameters())
    latents = {m: torch.from_numpy(x["valid"][:, 16 * i : 16 * (i + 1), None]) for i, m in enumerate(WIDTHS)}
    with torch.no_grad():
        predicted = model.fusion(latents)[0][:, 0].numpy()
    ridge = RidgeCV(PENALTIES).fit(x["train"], y["train"]).predict(x["valid"])
    errors = [np.abs(p - y["valid"]).mean() for p in (predicted, ridge)]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("clearly", [True, False])
def test_the_readout_network_must_be_clearly_better(clearly):
    """Its gain over the regression, which is 0 here, is positive on average, but not by two standard errors."""
    rng, model = np.random.default_rng(0), untrained()
    x = rng.standard_normal((40, 48)).astype(np.float32)
    nothing = {m: np.zeros((1, w)) for m, w in WIDTHS.items()}, np.zeros(1)
    train = x, 3 * x[:, 0]
    latents = {m: torch.from_numpy(x[:, 16 * i : 16 * (i + 1), None]) for i, m in enumerate(WIDTHS)}
    fit_readout(model, nothing, train, train)
    with torch.no_grad():
        network = model.fusion(latents)[0][:, 0].numpy()
    assert network.any()
    labels = network.copy()
    if not clearly:
        labels[np.abs(network).argsort()[::2]] = 0  # there the regression is right
    gain = np.abs(labels) - np.abs(network - labels)
    assert gain.mean() > 0 and (gain.mean() > 2 * gain.std() / 40**0.5) == clearly
    fit_readout(model, nothing, train, (x, labels))
    assert any(p.any() for p in model.fusion.readout.network.parameters()) is clearly


def test_training_keeps_the_initial_weights_if_no_epoch_is_better(tmp_path, tiny_config):
    data, model, initial = gaussian(), untrained(), untrained()
    config = changed(tiny_config, fusion={"lr": 1.0})  # a rate at which training diverges
    fusion_stage(initial, data, config).initialise()
    trainer = Trainer(model, config, tmp_path, False, {})
    trainer.run(fusion_stage(model, data, config))
    history = pd.DataFrame(trainer.history)
    assert history["epoch"].tolist() == [0, 1, 2]  # epoch 0: the initial weights
    assert history["kept"].tolist() == [True, False, False]
    assert all(torch.equal(v, initial.state_dict()[k]) for k, v in model.state_dict().items())


def test_component_encoders_are_not_trained(tmp_path, tiny_config):
    data, (model, initial) = gaussian(), (untrained(fusion={"readout": False}) for _ in range(2))
    fit_encoders(initial, data, torch.arange(96))
    before = {k: v.clone() for k, v in model.fusion.state_dict().items()}
    fit(model, data, tiny_config, tmp_path)
    assert all(torch.equal(w, weights(initial)[m]) for m, w in weights(model).items())
    assert any(not torch.equal(v, before[k]) for k, v in model.fusion.state_dict().items())


@pytest.mark.parametrize(("spread", "better"), [(4, False), (1.5, False), (1, True), (0.1, True)])
def test_initial_weights_are_replaced_only_by_clearly_better_ones(spread, better, tiny_config, tmp_path):
    """The loss falls by 1, which is .6, 1.5, 2.2 or 22 standard errors; the threshold is 2."""
    part = torch.nn.Linear(1, 1, bias=False)
    weight, initial = part.weight.detach().clone(), torch.arange(6, dtype=torch.float64)
    losses = [initial, initial - 1 + spread * torch.tensor([1, -1, 1, -1, 1, -1])]
    loss = lambda rows, generator, mask: part.weight.sum()  # noqa: E731
    stage = Stage("any", StageConfig(1, 0.1, 0.0, 2), [part], loss, lambda: losses.pop(0), 4, keep_initial=True)
    trainer = Trainer(part, tiny_config, tmp_path, False, {})
    trainer.run(stage)
    assert [(h["valid"], h["kept"]) for h in trainer.history] == [(2.5, True), (1.5, better)]
    assert torch.equal(part.weight, weight) is not better


@pytest.mark.parametrize("after", [1, 3])
def test_a_resumed_run_keeps_the_initial_losses(after, tiny_config, tmp_path, monkeypatch):
    """A run interrupted in or after its fusion stage gives the same results as one without interruption."""
    data, original, saves = gaussian(), trainer_module.write_checkpoint, []
    whole = fit(untrained(), data, tiny_config, tmp_path / "whole")

    def save_then_die(*args):
        original(*args)
        saves.append(1)
        if len(saves) == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer_module, "write_checkpoint", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        fit(untrained(), data, tiny_config, tmp_path / "cut")
    monkeypatch.setattr(trainer_module, "write_checkpoint", original)
    model = untrained()
    if after == 1:
        assert len(read_checkpoint(tmp_path / "cut", model)["stage"]["initial"]) == SIZES["valid"]
    resumed = fit(model, data, tiny_config, tmp_path / "cut", resume=True)
    pd.testing.assert_frame_equal(whole.history.drop(columns="seconds"), resumed.history.drop(columns="seconds"))
    assert (whole.history["epoch"] == 0).sum() == 1  # of fusion
    assert all(torch.equal(v, resumed.model.state_dict()[k]) for k, v in whole.model.state_dict().items())
