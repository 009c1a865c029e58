"""Every recoverer and every switch behind one interface."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import WIDTHS, tiny_model
from sklearn.linear_model import Ridge

from imder_lib import UserError
from imder_lib.config import RELEASED, rules
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.experiment.stages import prepare
from imder_lib.model.regression import PENALTIES, LinearMean, windows

MIXED = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 1]], dtype=torch.bool)
IDS = [f"s{i}" for i in range(6)]
SWITCHES = [
    {"preset": "kit"},
    {"preset": "kit", "sampler": "heun"},
    {"preset": "kit", "sampler": "dpmpp_2m"},
    {"preset": "kit", "sampler": "em"},
    {"preset": "kit", "schedule": "karras", "eta": 1.0},
    {"preset": "kit", "guidance": 2.0},
    {"preset": "kit", "net": "unet"},
    {"preset": "kit", "net": "unet", "train_condition": "independent", "sample_condition": "frozen"},
    {"preset": "released"},
    {"preset": "released", "train_condition": "independent"},
    {"preset": "released", "train_condition": "clean", "sample_condition": "clean"},
    {"preset": "released", "sampler": "dpmpp_2m_sde", "schedule": "karras"},
    {"preset": "released", "latents": "standardised", "parameterisation": "edm", "sampler": "heun"},
]
OTHERS = [{"recoverer": r} for r in ("zero", "mean", "regression", "network")]


def latents(n=6, T=8, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {m: torch.randn(n, 16, T, generator=g) for m in WIDTHS}


def prepared(**kw):
    model = tiny_model(**kw).eval()
    prepare(model, latents(40, seed=1), torch.ones(40, 3, dtype=torch.bool))
    return model


@pytest.mark.parametrize("kw", SWITCHES + OTHERS, ids=str)
def test_recovers_what_is_missing_and_touches_nothing_else(kw):
    model, x = prepared(**kw), latents()
    other = {m: torch.where(MIXED[:, i, None, None], v, 7.0) for i, (m, v) in enumerate(x.items())}
    a, b = (model.recover(y, MIXED, SampleNoise(1, IDS)) for y in (x, other))
    for i, m in enumerate(WIDTHS):
        assert torch.equal(a[m][0, MIXED[:, i]], x[m][MIXED[:, i]])
        assert torch.equal(a[m][0, ~MIXED[:, i]], b[m][0, ~MIXED[:, i]])  # what is missing is never read
        assert torch.isfinite(a[m]).all()


@pytest.mark.parametrize("kw", SWITCHES, ids=str)
def test_mirrored_draws(kw):
    """Every second draw takes the noise of the one before with its sign turned; the others are what they were."""
    model, x, noise = prepared(**kw), latents(), SampleNoise(1, IDS)
    plain = model.recover(x, MIXED, noise, draws=3)["text"][:, ~MIXED[:, 0]]
    mirrored = model.recover(x, MIXED, SampleNoise(1, IDS), draws=4, antithetic=True)["text"][:, ~MIXED[:, 0]]
    assert torch.equal(plain[[0, 2]], mirrored[[0, 2]])
    assert not torch.equal(plain[1], mirrored[1])
    if "guidance" not in kw and model.config.rules.net == "joint":  # an untrained joint net is linear and odd
        estimate = prepared(recoverer="mean").recover(x, MIXED)["text"][0, ~MIXED[:, 0]]
        for pair in (mirrored[:2], mirrored[2:]):
            torch.testing.assert_close(pair.mean(0), estimate, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kw", [*SWITCHES, {"recoverer": "network"}], ids=str)
def test_trained_ones_have_a_loss_with_a_gradient(kw):
    model = prepared(**kw).train()
    losses = model.recoverer.losses(latents(), MIXED, torch.Generator().manual_seed(0))
    assert all(v > 0 for v in losses.values())
    sum(losses.values()).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.recoverer.parameters())


def test_nothing_is_learned_from_what_is_not_known():
    model = prepared().train()
    truth = MIXED.clone()  # exactly what is available is known: nothing to learn
    assert all(v == 0 for v in model.recoverer.losses(latents(), MIXED, None, truth).values())


@pytest.mark.parametrize("kw", [{"preset": "kit"}, {"preset": "released"}], ids=str)
def test_draws_differ_and_depend_on_the_sample_alone(kw):
    model, x = prepared(**kw), latents()
    drawn = model.recover(x, MIXED, SampleNoise(1, IDS), draws=3)["text"]
    assert drawn.shape == (3, 6, 16, 8)
    gone = ~MIXED[:, 0]
    assert not torch.equal(drawn[0, gone], drawn[1, gone])
    alone = model.recover({m: v[2:3] for m, v in x.items()}, MIXED[2:3], SampleNoise(1, IDS[2:3]), draws=3)["text"]
    torch.testing.assert_close(alone[:, 0], drawn[:, 2], rtol=1e-3, atol=1e-3)


def test_guidance_sets_how_far_the_condition_pulls():
    gone, pulls = ~MIXED[:, 0], {}
    for w in (0.0, 1.0, 2.0):
        model = prepared(guidance=w)
        torch.nn.init.normal_(model.recoverer.net.out.weight, std=0.1, generator=torch.Generator().manual_seed(0))
        drawn = [model.recover(latents(seed=s), MIXED, SampleNoise(1, IDS))["text"][0, gone] for s in (0, 7)]
        pulls[w] = (drawn[0] - drawn[1]).abs().mean().item()  # of another condition under the same noise
    assert pulls[0.0] < 0.05 * pulls[1.0]
    assert pulls[2.0] > 1.5 * pulls[1.0]


def test_some_training_samples_see_no_condition():
    seen = []
    for p in (0.0, 0.9):
        model = prepared(condition_dropout=p).train()
        model.recoverer.net.register_forward_hook(lambda net, inputs, out: seen.append(inputs[2]))
        for mode in (True, False):
            model.train(mode).recoverer.losses(latents(), MIXED, torch.Generator().manual_seed(0))
    without = [(known == 0).flatten(1).all(dim=1).sum().item() for known in seen]
    assert without[:2] == [0, 0]
    assert without[2] >= 3
    assert without[3] == 0  # validation hears it


@pytest.mark.parametrize("preset", ["kit", "released"])
def test_a_channel_that_never_varies_comes_back_as_it_is(preset):
    dead = lambda x: {m: torch.cat([v[:, :-1], torch.full_like(v[:, -1:], 3.0)], dim=1) for m, v in x.items()}  # noqa: E731
    model = tiny_model(preset=preset, latents="standardised").eval()
    prepare(model, dead(latents(40, seed=1)), torch.ones(40, 3, dtype=torch.bool))
    drawn = model.recover(dead(latents()), MIXED, SampleNoise(1, IDS))
    assert all((x[0, :, -1] == 3).all() for x in drawn.values())


def test_predictions_of_draws():
    model, x = prepared(), latents()
    out = model.predict(x, MIXED, SampleNoise(1, IDS), draws=4)
    assert out.shape == (4, 6, 1)
    assert (out[:, 0] == out[0, 0]).all()  # complete: no spread
    assert (out[:, 1:].std(dim=0) > 0).all()


@pytest.mark.parametrize("bad", [{"draws": 0}, {"steps": 0}, {"steps": -3}])
def test_bad_counts_are_refused(bad):
    with pytest.raises(UserError, match="at least 1"):
        prepared().recover(latents(), MIXED, **bad)


@pytest.mark.parametrize(
    "bad",
    [
        {"net": "transformer"},
        {"parameterisation": "v"},
        {"latents": "whitened"},
        {"train_condition": "fresh"},
        {"sample_condition": "shared"},
        {"sampler": "euler"},
        {"schedule": "cosine"},
        {"eta": 1.5},
        {"guidance": -1.0},
        {"guidance": 2.0, "condition_dropout": 0.0},
        {"guidance": 2.0, "net": "unet"},
        {"condition_dropout": 1.0},
        {"latents": "raw"},
        {"sample_condition": "fresh"},
    ],
    ids=str,
)
def test_unknown_and_impossible_switches_are_refused(bad):
    with pytest.raises(UserError):
        rules("kit", **bad)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match="recoverer"):
        tiny_model(recoverer="magic")
    with pytest.raises(UserError, match="rules"):
        rules("paper")
    assert rules("released") == RELEASED


def test_windows_are_the_steps_around_and_zero_beyond_the_ends():
    x = torch.randn(2, 3, 7)
    w = windows(x).unflatten(2, (9, 3))  # (N, T, offset + 4, C)
    for t in range(7):
        for offset in range(-4, 5):
            inside = 0 <= t + offset < 7
            assert torch.equal(w[:, t, offset + 4], x[:, :, t + offset] if inside else torch.zeros(2, 3))
    assert windows(torch.ones(1, 2, 1)).shape == (1, 1, 18)


ONE = torch.tensor([[True, False]])


def test_linear_mean_finds_a_linear_truth_four_steps_to_both_sides():
    g = torch.Generator().manual_seed(0)
    a, kernel = torch.randn(400, 3, 12, generator=g), torch.randn(3, 3, 9, generator=g) / 27**0.5
    x = torch.stack([a, F.conv1d(a, kernel, padding=4)], dim=1)
    linear = LinearMean(2, 3)
    linear.fit(x[:300], chunk=70)
    found = linear(x[300:], ONE.expand(100, 2))
    torch.testing.assert_close(found[:, 1], x[300:, 1], atol=1e-3, rtol=0)
    hidden = torch.where(ONE[..., None, None], x[300:], 7.0)
    assert torch.equal(linear(hidden, ONE.expand(100, 2)), found)  # what is missing is never read
    assert not found[:, 0].any()  # and what is available not estimated


@pytest.mark.parametrize("noise", [1.0, 0.3])
def test_linear_mean_is_ridge_regression_whose_penalty_samples_held_out_choose(noise):
    g = torch.Generator().manual_seed(0)
    a, own = torch.randn(2, 100, 2, 6, generator=g)
    x = torch.stack([a, (1 - noise**2) ** 0.5 * a.roll(1, -1) + noise * own], dim=1)  # 1: of a nothing is heard
    held, rows = torch.arange(100) % 5 == 0, windows(a).double()
    errors = {}
    for p in PENALTIES:
        ridge = Ridge(alpha=p * 80 * 6, fit_intercept=False).fit(rows[~held].flatten(0, 1), own_rows(x, ~held))
        errors[p] = np.square(ridge.predict(rows[held].flatten(0, 1)) - own_rows(x, held)).mean()
    best = min(errors, key=errors.get)
    assert (best == max(PENALTIES)) == (noise == 1)
    linear = LinearMean(2, 2)
    linear.fit(x)
    ridge = Ridge(alpha=best * 80 * 6, fit_intercept=False).fit(rows.flatten(0, 1), own_rows(x, held | ~held))
    found = linear(x, ONE.expand(100, 2))[:, 1].transpose(1, 2).flatten(0, 1)
    np.testing.assert_allclose(found, ridge.predict(rows.flatten(0, 1)), atol=1e-5)


def own_rows(x: torch.Tensor, samples: torch.Tensor) -> np.ndarray:
    """The second modality's frames of some samples: (n T, D)."""
    return x[samples, 1].transpose(1, 2).flatten(0, 1).double().numpy()
