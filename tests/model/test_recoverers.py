"""Every recoverer and every switch behind one interface."""

import math

import pytest
import torch
from conftest import WIDTHS, tiny_model

from imder_lib import UserError
from imder_lib.config import RELEASED, rules
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.experiment.stages import prepare
from imder_lib.model import regression
from imder_lib.model.regression import LinearMean, windows

MIXED = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 1]], dtype=torch.bool)
IDS = [f"s{i}" for i in range(6)]
SWITCHES = [
    {"preset": "kit"},
    {"preset": "kit", "linear_mean": False},
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
    if (
        not {"linear_mean", "guidance"} & kw.keys() and model.config.rules.net == "joint"
    ):  # an untrained joint net is linear and odd
        estimate = prepared(recoverer="regression").recover(x, MIXED)["text"][0, ~MIXED[:, 0]]
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
    assert all(v == 0 for v in model.recoverer.losses(latents(), MIXED, None, None, truth).values())


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
        drawn = [
            prepared(guidance=w).recover(latents(seed=s), MIXED, SampleNoise(1, IDS))["text"][0, gone] for s in (0, 7)
        ]
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
        {"net": "unet", "latents": "raw"},
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


def test_windows_are_sums_and_differences_of_what_fades_before_and_after():
    x = torch.randn(2, 3, 60, dtype=torch.float64)
    w = windows(x).unflatten(2, (11, 3))  # (N, T, K, C)
    before = lambda k: (w[:, :, k] + w[:, :, k + 1]) / 2**0.5  # noqa: E731
    after = lambda k: (w[:, :, k] - w[:, :, k + 1]) / 2**0.5  # noqa: E731
    torch.testing.assert_close(w[:, 20, 0], x[:, :, 20])
    for k, span in ((1, 1), (9, 8)):
        fades = torch.exp(-torch.arange(30.0, dtype=torch.float64) / span)
        fades = fades * (1 - math.exp(-1 / span)) ** 0.5  # the images beyond both ends are far away
        torch.testing.assert_close(before(k)[:, 30], x[:, :, :30].flip(2) @ fades, atol=0.03, rtol=0)
        torch.testing.assert_close(after(k)[:, 29], x[:, :, 30:] @ fades, atol=0.03, rtol=0)
    image = 0.2 * x[:, :, :50] @ torch.exp(-torch.arange(50.0, dtype=torch.float64))  # before the start: a fifth
    started = (image + x[:, :, 0]) * (1 - math.exp(-1)) ** 0.5  # of the mirror image, and the first step once more
    torch.testing.assert_close(before(1)[:, 0], started, atol=1e-6, rtol=0)
    assert windows(torch.ones(1, 2, 1)).shape == (1, 1, 22)


def noisy_steps(n: int, steps: int, noise: float) -> torch.Tensor:
    """Latents (n, 2, 2, steps) of a state that keeps .9 of itself: seen through noise, and as it is."""
    g = torch.Generator().manual_seed(0)
    state = [torch.randn(n, 2, generator=g)]
    for _ in range(steps + 1):
        state.append(0.9 * state[-1] + 0.19**0.5 * torch.randn(n, 2, generator=g))
    frames = torch.stack(state, dim=2)  # one more at each end than latents: a latent sees three
    seen = frames + noise * torch.randn(frames.shape, generator=g)
    x = torch.stack([y.unfold(2, 3, 1).mean(dim=3) for y in (seen, frames)], dim=1)
    return x / x.std(dim=(0, 3), keepdim=True)


def end_error(x: torch.Tensor, train: int) -> float:
    """Squared error of the estimate at both ends, beyond that train samples."""
    linear = LinearMean(2, 2)
    linear.fit(x[:train])
    found = linear(x[train:], torch.tensor([[True, False]]).expand(len(x) - train, 2))
    return (found - x[train:])[:, 1, :, [0, -1]].square().mean().item()


def test_the_last_latent_counts_once_more_at_the_ends(monkeypatch):
    x = noisy_steps(2400, steps=30, noise=2.0)
    error = end_error(x, 400)
    monkeypatch.setattr(regression, "END", 0.0)
    assert error < 0.98 * end_error(x, 400)


@pytest.mark.parametrize("noise, spans", [(4.0, 1), (0.1, 4)])
def test_windows_are_chosen_by_cross_validation(noise, spans):
    linear = LinearMean(2, 2)
    linear.fit(noisy_steps(400, steps=30, noise=noise))
    used = linear.weight[1].unflatten(0, (linear.K, -1)).flatten(1).any(dim=1)  # of the windows, x first
    assert used.sum() == 1 + 2 * spans


def test_linear_mean_finds_a_linear_truth_and_held_out_folds_are_worse():
    g = torch.Generator().manual_seed(0)
    a, noise = torch.randn(300, 4, 20, generator=g), torch.randn(300, 4, 20, generator=g)
    b = torch.einsum("ij,njt->nit", torch.randn(4, 4, generator=g), a.roll(1, -1))  # of the step before
    x = torch.stack([a, b / b.std() * 0.8 + 0.6 * noise], dim=1)
    linear = LinearMean(2, 4)
    fold = linear.fit(x)
    available = torch.tensor([[True, False]]).expand(300, 2)
    error = lambda y: (y[:, 1, :, 1:] - x[:, 1, :, 1:]).square().mean().item()  # noqa: E731
    inside, outside = error(linear(x, available)), error(linear(x, available, fold))
    assert 0.3 < inside < outside < 0.42  # the noise has variance .36
    assert (linear(x, available)[:, 0] == 0).all()  # what is available is not estimated
