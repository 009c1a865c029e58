"""The closed-form start: an untrained model predicts what one ridge regression does."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from imder_lib import IMDer, ModelConfig, load_data
from imder_lib.experiment.closed_form import PENALTIES, _largest, closed_form_start
from imder_lib.experiment.stages import fusion_stage
from imder_lib.experiment.trainer import Stage, Trainer
from imder_lib.model.recovery import encode_split

SIZES = {"train": 96, "valid": 16, "test": 40}
WIDTHS = {"text": 12, "audio": 5, "vision": 20}


def untrained(widths, **changes):
    return IMDer(ModelConfig(widths, dim=16, layers=1, score_channels=(16, 32), readout=True, **changes), seed=1)


def averages(split, cut):
    x = split.batch().features
    return np.concatenate([v[:, cut : v.shape[1] - cut].mean(1).numpy() for v in x.values()], axis=1)


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_an_untrained_model_predicts_what_ridge_regression_does(steps):
    data = load_data("gaussian", sizes=SIZES, widths=WIDTHS, steps=steps)
    model = untrained(WIDTHS).eval()
    closed_form_start(model, data, torch.arange(96))
    cut = int(steps >= 3)
    scaler = StandardScaler().fit(averages(data.train, cut))
    ridge = RidgeCV(PENALTIES).fit(scaler.transform(averages(data.train, cut)), data.train.labels)
    with torch.no_grad():
        ours = model.fusion(encode_split(model, data.test))[0][:, 0].numpy()
    assert np.abs(ours - ridge.predict(scaler.transform(averages(data.test, cut)))).max() < 1e-4


def test_principal_components_are_uncorrelated_and_no_sample_beyond_rows_is_read():
    data = load_data("gaussian", sizes=SIZES, widths=WIDTHS, steps=9)
    model, other = untrained(WIDTHS).eval(), untrained(WIDTHS).eval()
    closed_form_start(model, data, torch.arange(80))
    for x in (data.train.features["text"], data.train.labels):
        x[80:] = 1e3
    closed_form_start(other, data, torch.arange(80))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    latents = encode_split(model, data.train.first(80))["text"][:, 1:].transpose(1, 2).flatten(0, 1)
    covariance = torch.cov(latents.T)
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-3 * covariance.diag().max()
    kept = covariance.diag() > 0
    assert 3 <= kept.sum() < 15  # three directions of affect, and some of their changes in time: not the noise
    assert covariance.diag()[kept].mean() == pytest.approx(1, abs=0.02)


def test_noise_has_no_components():
    data = load_data("gaussian", sizes=SIZES, widths=WIDTHS, steps=9)
    data.train.features["vision"][:] = np.random.default_rng(0).standard_normal((96, 9, 20))
    model = untrained(WIDTHS)
    closed_form_start(model, data, torch.arange(96))
    used = [m.weight.flatten(1).any(dim=1).sum().item() for m in model.encoders.values()]
    assert used[0] >= 4
    assert used[2] <= 2  # the ridge regression's channel, and by chance one more


def test_what_noise_hides_is_found_by_what_the_others_show():
    data = load_data("gaussian", sizes={"train": 384, "valid": 16, "test": 16}, widths=WIDTHS, steps=9)
    rng = np.random.default_rng(0)
    shown, hidden = rng.standard_normal((384, 9, 1)), rng.standard_normal(20)
    data.train.features["text"][:] = shown + rng.standard_normal((384, 9, 12))
    data.train.features["audio"][:] = rng.standard_normal((384, 9, 5))
    data.train.features["vision"][:] = 0.06 * shown * hidden + rng.standard_normal((384, 9, 20))
    model = untrained(WIDTHS)
    closed_form_start(model, data, torch.arange(384))
    text, audio, vision = (m.weight.detach().numpy() for m in model.encoders.values())
    assert [np.abs(w).any(axis=(1, 2)).sum() for w in (text, audio, vision)] == [4, 1, 4]  # one of each frame; none
    assert max(abs(np.corrcoef(w[:, 1], hidden)[0, 1]) for w in vision[1:4]) > 0.9


def test_the_largest_eigenvalues_are_those_of_the_whole_matrix():
    x = np.random.default_rng(0).standard_normal((200, 400))
    for matrix in (x.T @ x, np.zeros((400, 400)), np.eye(400)):
        np.testing.assert_allclose(_largest(matrix, 16), np.linalg.eigvalsh(matrix)[::-1][:16], atol=1e-9)


def test_a_constant_feature_and_a_modality_without_encoder_change_nothing_else():
    widths = WIDTHS | {"audio": 16}
    data = load_data("gaussian", sizes=SIZES, widths=widths, steps=4)
    data.train.features["text"][..., 3] = 7.0
    model = untrained(widths)
    closed_form_start(model, data, torch.arange(96))
    assert model.encoders["text"].weight.isfinite().all()
    assert not model.encoders["text"].weight[0, 3].any()
    assert set(model.encoders) == {"text", "vision"}


def test_a_modality_keeps_what_others_say_better():
    """Text tells the label, so that the regression on all hardly hears vision, whose own word is no component."""
    data = load_data("gaussian", sizes=SIZES | {"train": 400}, widths=WIDTHS, steps=4)
    rng, x, y = np.random.default_rng(0), data.train.features, data.train.labels[:, None]
    for m in x:
        x[m] = (rng.standard_normal((400, 1, 1)) + 0.5 * rng.standard_normal(x[m].shape)).astype(np.float32)
    x["text"][..., 0] = y + 0.1 * rng.standard_normal((400, 4))
    x["vision"][..., 5] = y + 1.5 * rng.standard_normal((400, 1))
    model = untrained(WIDTHS).eval()
    closed_form_start(model, data, torch.arange(400))
    kept = encode_split(model, data.train)["vision"].mean(2).numpy()
    told = [RidgeCV(PENALTIES).fit(z, y[:, 0]).score(z, y[:, 0]) for z in (kept, averages(data.train, 1)[:, 17:])]
    assert told[1] > 0.3
    assert told[0] > 0.9 * told[1]
    others = [m for m in x if m != "vision"]
    used = {m: int(model.encoders[m].weight.flatten(1).any(dim=1).sum()) for m in x}
    assert used == {"vision": 3} | dict.fromkeys(others, 2)  # each its part and its one component; vision its own word


def test_training_keeps_the_start_where_nothing_validates_better(tmp_path, tiny_config):
    data = load_data("gaussian", sizes=SIZES, widths=WIDTHS, steps=4)
    model, start = untrained(WIDTHS), untrained(WIDTHS)
    config = replace(tiny_config, lr=1.0, fusion_epochs=2)  # a rate that spoils everything
    closed_form_start(start, data, torch.arange(96))
    trainer = Trainer(model, config, tmp_path, resume=False)
    trainer.run(fusion_stage(model, data, config))
    history = pd.DataFrame(trainer.progress.history)
    assert history["epoch"].tolist() == [0, 1, 2]  # the start stands in the history, as epoch 0
    assert history["kept"].tolist() == [True, False, False]
    assert torch.equal(model.fusion.readout.weight, start.fusion.readout.weight)
    assert torch.equal(model.encoders["text"].weight, start.encoders["text"].weight)


def test_channels_that_the_start_leaves_empty_stay_empty(tiny_config):
    data = load_data("gaussian", sizes=SIZES, widths=WIDTHS, steps=4)
    model = untrained(WIDTHS)
    stage = fusion_stage(model, data, tiny_config)
    stage.start()
    used = {m: e.weight.detach().flatten(1).any(dim=1) for m, e in model.encoders.items()}
    assert all(0 < u.sum() < 16 for u in used.values())
    optimiser = torch.optim.AdamW(stage.parameters())
    before = {m: e.weight.detach().clone() for m, e in model.encoders.items()}
    for _ in range(3):
        optimiser.zero_grad()
        stage.loss(torch.arange(32), torch.Generator()).backward()
        optimiser.step()
    for m, e in model.encoders.items():
        assert torch.equal((e.weight != before[m]).flatten(1).any(dim=1), used[m])


@pytest.mark.parametrize(("spread", "better"), [(4, False), (1.5, False), (1, True), (0.1, True)])
def test_a_good_start_gives_way_to_what_is_clearly_better_only(spread, better, tiny_config, tmp_path):
    """The loss falls by 1 on average, .6, 1.5, 2.2 and 22 standard errors: two make it clear."""
    part = torch.nn.Linear(1, 1, bias=False)
    weight, start = part.weight.detach().clone(), torch.arange(6, dtype=torch.float64)
    losses = [start, start - 1 + spread * torch.tensor([1, -1, 1, -1, 1, -1])]
    stage = Stage("any", [part], 1, lambda rows, _: part.weight.sum(), lambda: losses.pop(0), 4, 0.1, keep_start=True)
    trainer = Trainer(part, tiny_config, tmp_path, resume=False)
    trainer.run(stage)
    assert [(h["valid"], h["kept"]) for h in trainer.progress.history] == [(2.5, True), (1.5, better)]
    assert torch.equal(part.weight, weight) is not better


def test_a_resumed_run_still_compares_with_the_start(tiny_config, tmp_path):
    data, models = load_data("gaussian", sizes=SIZES, widths=WIDTHS, steps=4), [untrained(WIDTHS) for _ in range(3)]
    config = replace(tiny_config, fusion_epochs=3)
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole = Trainer(models[0], config, tmp_path / "whole", resume=False)
    whole.run(fusion_stage(models[0], data, config))
    stage, calls = fusion_stage(models[1], data, config), []
    validate = stage.validate
    stage.validate = lambda: validate() if calls.append(1) or len(calls) < 3 else 1 / 0  # the start, epoch 1, the end
    with pytest.raises(ZeroDivisionError):
        Trainer(models[1], config, tmp_path / "cut", resume=False).run(stage)
    resumed = Trainer(models[2], config, tmp_path / "cut", resume=True)
    assert len(resumed.progress.start) == SIZES["valid"]
    resumed.run(fusion_stage(models[2], data, config))
    assert resumed.progress.start == whole.progress.start
    assert [h["valid"] for h in resumed.progress.history] == [h["valid"] for h in whole.progress.history]
    for a, b in zip(models[0].parameters(), models[2].parameters(), strict=True):
        assert torch.equal(a, b)
