"""All recoverers and rules through their common interface."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import WIDTHS, tiny_model
from sklearn.linear_model import Ridge

from imder_lib import UserError
from imder_lib.config import KIT, PRESETS, model_preset
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.diffusion.samplers import SAMPLERS, Sampler
from imder_lib.model.recovery import GPU_ROWS, Standardizer, ZeroFill, passes
from imder_lib.model.regression import PENALTIES, LinearMean, windows

MIXED = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 1, 1], [1, 0, 1], [0, 0, 1]], dtype=torch.bool)
IDS = [f"s{i}" for i in range(6)]
SWITCHES = [
    {"preset": "kit"},
    {"preset": "kit", "sampler": Sampler("heun")},
    {"preset": "kit", "sampler": Sampler("dpmpp_2m")},
    {"preset": "kit", "sampler": Sampler("em")},
    {"preset": "kit", "sampler": Sampler(schedule="karras", settings={"eta": 1.0})},
    {"preset": "kit", "sampler": Sampler(guidance=2.0)},
    {"preset": "kit", "net": "unet"},
    {"preset": "kit", "net": "unet", "train_condition": "independent", "sample_condition": "frozen"},
    {"preset": "released"},
    {"preset": "released", "train_condition": "independent"},
    {"preset": "released", "train_condition": "clean", "sample_condition": "clean"},
    {"preset": "released", "sampler": Sampler("dpmpp_2m_sde", schedule="released")},
    {"preset": "released", "latents": "standardised", "parameterisation": "edm", "sampler": Sampler("heun")},
]
OTHERS = [{"recoverer": r} for r in ("zero", "mean", "regression", "network")]


def latents(n=6, T=8, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {m: torch.randn(n, 16, T, generator=g) for m in WIDTHS}


def prepared(**kw):
    model = tiny_model(**kw).eval()
    model.recoverer.prepare(latents(40, seed=1))
    return model


@pytest.mark.parametrize("kw", SWITCHES + OTHERS, ids=str)
def test_only_missing_latents_are_replaced(kw):
    model, x = prepared(**kw), latents()
    other = {m: torch.where(MIXED[:, i, None, None], v, 7.0) for i, (m, v) in enumerate(x.items())}
    a, b = (model.recover(y, MIXED, SampleNoise(1, IDS)) for y in (x, other))
    for i, m in enumerate(WIDTHS):
        assert torch.equal(a[m][0, MIXED[:, i]], x[m][MIXED[:, i]])
        assert torch.equal(a[m][0, ~MIXED[:, i]], b[m][0, ~MIXED[:, i]])  # missing latents are never read
        assert torch.isfinite(a[m]).all()


@pytest.mark.parametrize("kw", [*SWITCHES, {"recoverer": "network"}], ids=str)
def test_trained_recoverers_have_a_loss_with_a_gradient(kw):
    model = prepared(**kw).train()
    losses = model.recoverer.losses(latents(), MIXED, torch.Generator().manual_seed(0))
    assert all(v > 0 for v in losses.values())
    sum(losses.values()).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.recoverer.parameters())


def test_unknown_latents_give_no_loss():
    model = prepared().train()
    truth = MIXED.clone()  # no missing latent is known
    assert all(v == 0 for v in model.recoverer.losses(latents(), MIXED, None, truth).values())


@pytest.mark.parametrize("kw", [{"preset": "kit"}, {"preset": "released"}], ids=str)
def test_draws_differ_and_do_not_depend_on_the_batch(kw):
    model, x = prepared(**kw), latents()
    drawn = model.recover(x, MIXED, SampleNoise(1, IDS), draws=3)["text"]
    assert drawn.shape == (3, 6, 16, 8)
    missing = ~MIXED[:, 0]
    assert not torch.equal(drawn[0, missing], drawn[1, missing])
    alone = model.recover({m: v[2:3] for m, v in x.items()}, MIXED[2:3], SampleNoise(1, IDS[2:3]), draws=3)["text"]
    torch.testing.assert_close(alone[:, 0], drawn[:, 2], rtol=1e-3, atol=1e-3)


def test_recovery_and_prediction_in_passes_of_few_rows(monkeypatch):
    model, x, sizes = prepared(), latents(), []
    whole = model.recover(x, MIXED, SampleNoise(1, IDS), draws=3)
    predicted = model.predict(whole, MIXED)
    monkeypatch.setattr("imder_lib.model.recovery.ROWS", 4)
    rows = lambda x: len(x["text"] if isinstance(x, dict) else x)  # noqa: E731
    for part in (model.recoverer.net.embed, model.fusion):
        part.register_forward_hook(lambda net, inputs, out: sizes.append((net, rows(inputs[0]))))
    drawn = model.recover(x, MIXED, SampleNoise(1, IDS), draws=3)
    torch.testing.assert_close(model.predict(drawn, MIXED), predicted, rtol=1e-3, atol=1e-3)
    assert {net for net, _ in sizes} == {model.recoverer.net.embed, model.fusion}
    assert max(n for _, n in sizes) == 4
    for m in WIDTHS:
        torch.testing.assert_close(drawn[m], whole[m], rtol=1e-3, atol=1e-3)


def test_a_recoverer_that_reads_what_is_missing_finds_zeros():
    class Reads(ZeroFill):
        def forward(self, latents, available, noise=None, sampler=None, callback=None):
            return dict(latents)

    given = latents()
    for m, x in Reads(tiny_model().config).recover(given, MIXED, draws=2).items():
        place = list(WIDTHS).index(m)
        expected = given[m] * MIXED[:, place, None, None]
        assert torch.equal(x, expected[None].expand_as(x))


def test_guidance_scales_the_effect_of_the_condition():
    model, missing, effect = prepared(), ~MIXED[:, 0], {}
    torch.nn.init.normal_(model.recoverer.net.out.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    for w in (0.0, 1.0, 2.0):
        sampler, noise = Sampler(steps=3, guidance=w), SampleNoise(1, IDS)
        drawn = [
            model.recover(latents(seed=s), MIXED, noise.spawn(range(6), ""), sampler=sampler)["text"][0, missing]
            for s in (0, 7)
        ]
        effect[w] = (drawn[0] - drawn[1]).abs().mean().item()  # of another condition with the same noise
    assert effect[0.0] < 0.05 * effect[1.0]
    assert effect[2.0] > 1.5 * effect[1.0]


def test_condition_dropout_in_training_only():
    seen = []
    for p in (0.0, 0.9):
        model = prepared(condition_dropout=p).train()
        net, own = model.recoverer.net, model.recoverer.net.condition
        net.condition = lambda known, available, own=own: seen.append(known) or own(known, available)
        for mode in (True, False):
            model.train(mode).recoverer.losses(latents(), MIXED, torch.Generator().manual_seed(0))
    without = [(known == 0).flatten(1).all(dim=1).sum().item() for known in seen]
    assert without[:2] == [0, 0]
    assert without[2] >= 3
    assert without[3] == 0  # validation has no dropout


@pytest.mark.parametrize("preset", ["kit", "released"])
def test_constant_channels_are_restored(preset):
    fixed = lambda x: {m: torch.cat([v[:, :-1], torch.full_like(v[:, -1:], 3.0)], dim=1) for m, v in x.items()}  # noqa: E731
    model = tiny_model(preset=preset, latents="standardised").eval()
    model.recoverer.prepare(fixed(latents(40, seed=1)))
    drawn = model.recover(fixed(latents()), MIXED, SampleNoise(1, IDS))
    assert all((x[0, :, -1] == 3).all() for x in drawn.values())


def test_condition_keeps_the_proportions_of_channels():
    D = latents()["text"].shape[1]
    sizes = torch.tensor([4.0, 0.0] + [0.5] * (D - 2))[:, None]  # one is constant
    x = {m: v * sizes for m, v in latents(40, seed=1).items()}
    recoverer = tiny_model().recoverer
    recoverer.prepare(x)
    scaled = recoverer.standardizer(x)
    assert float(scaled[:, :, 0].std()) == pytest.approx(float(scaled[:, :, 2:].std()), rel=1e-3)
    known = recoverer.known(scaled, torch.tensor([[True, False, True]]).expand(40, 3))
    assert (known[:, 1] == 0).all()
    known = known[:, ::2]
    assert float(known[:, :, 0].std() / known[:, :, 2:].std()) == pytest.approx(8, rel=0.1)
    assert float(known.square().mean()) == pytest.approx(1, rel=1e-3)


def test_predictions_of_draws():
    model, x = prepared(), latents()
    out = model.predict(model.recover(x, MIXED, SampleNoise(1, IDS), draws=4), MIXED)
    assert out.shape == (4, 6, 1)
    assert (out[:, 0] == out[0, 0]).all()  # a complete sample has no spread
    assert (out[:, 1:].std(dim=0) > 0).all()


def test_the_sampler_of_a_call_does_not_change_the_model():
    model, x, config = prepared(), latents(), prepared().config
    draw = lambda sampler: model.recover(x, MIXED, SampleNoise(1, IDS), sampler=sampler)["text"]  # noqa: E731
    assert torch.equal(draw(None), draw(config.sampler))
    assert not torch.equal(draw(None), draw(Sampler("heun", 5)))
    assert model.config == model.recoverer.config == config


def test_an_added_sampler_gets_its_settings(monkeypatch):
    seen = []

    def mine(denoise, sigmas, x, condition=None, noise=None, callback=None, colour=0.5, order=2):
        seen.append((colour, order))
        return denoise(x, sigmas[0] * x.new_ones(len(x)), condition)

    monkeypatch.setitem(SAMPLERS, "mine", mine)
    for sampler in (Sampler("mine", 1), Sampler("mine", 1, settings={"colour": 0.3, "order": 1})):
        prepared().recover(latents(), MIXED, SampleNoise(1, IDS), sampler=sampler)
    assert seen == [(0.5, 2), (0.3, 1)]


@pytest.mark.parametrize(
    "bad",
    [
        lambda: prepared().recover(latents(), MIXED, draws=0),
        lambda: Sampler(steps=0),
        lambda: Sampler(steps=1.5),
        lambda: Sampler(steps=15.0),
        lambda: Sampler(guidance=float("nan")),
        lambda: Sampler("euler"),
        lambda: Sampler(schedule="cosine"),
        lambda: Sampler(guidance=-1.0),
        lambda: Sampler("heun", settings={"eta": 0.9}),  # a setting without effect
        lambda: Sampler("dpmpp_2m", settings={"eta": 0.9}),  # an ODE
        lambda: Sampler(settings={"order": 2}),
        lambda: prepared().recover(latents(), MIXED, sampler=Sampler(settings={"eta": 1.5})),
        lambda: prepared().recover(latents(), MIXED, sampler=Sampler(settings={"above": float("nan")})),
        lambda: Sampler(settings={"eta": "much"}),
        lambda: prepared(preset="released").recover(latents(), MIXED, sampler=Sampler(guidance=2.0)),
        lambda: prepared(condition_dropout=0.0).recover(latents(), MIXED, sampler=Sampler(guidance=2.0)),
        lambda: prepared(condition_dropout=0.0, sampler=Sampler(guidance=2.0)),
    ],
)
def test_bad_sampler_settings_raise(bad):
    with pytest.raises(UserError, match=r"at least|whole|expected one of|setting|must|needs"):
        bad()


@pytest.mark.parametrize(
    "bad",
    [
        {"net": "transformer"},
        {"parameterisation": "v"},
        {"latents": "whitened"},
        {"train_condition": "fresh"},
        {"sample_condition": "shared"},
        {"net": "unet"},  # condition_dropout has no effect there
        {"condition_dropout": 1.0},
        {"latents": "raw"},
        {"sample_condition": "fresh"},
    ],
    ids=str,
)
def test_bad_rules_raise(bad):
    with pytest.raises(UserError):
        replace(KIT, **bad)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.tensor([[True, True, False], [False, False, False]]), "row 1 of available has no modality"),
        (torch.ones(2, 3, dtype=torch.int64), "available must be bool"),
        (torch.ones(3, 3, dtype=torch.bool), "available must be bool"),
    ],
)
def test_a_bad_mask_is_refused(mask, message):
    model = tiny_model()
    with pytest.raises(UserError, match=message):
        model.recover({m: torch.zeros(2, 16, 4) for m in WIDTHS}, mask)


def test_a_modality_of_zeros_is_constant():
    standardizer = Standardizer(["a", "b"], 2)
    standardizer.fit({"a": torch.zeros(3, 2, 4), "b": torch.randn(3, 2, 4)})
    assert standardizer.varies[:, 0, 0].tolist() == [0, 1]
    assert all(x.isfinite().all() for x in standardizer.buffers())


def test_padding_is_not_counted_in_statistics_of_latents():
    """Frames of zeros stay zero; the other ones have mean 0 and standard deviation 1 in each channel."""
    x = {m: 5 + v for m, v in latents(40, seed=1).items()}
    for v in x.values():
        v[:30, :, 3:] = 0
    standardizer = Standardizer(list(x), 16)
    standardizer.fit(x)
    out = standardizer(x).permute(0, 3, 1, 2)  # (N, T, M, D)
    assert not out[:30, 3:].any()
    frames = torch.cat([out[:30, :3].flatten(0, 1), out[30:].flatten(0, 1)])
    torch.testing.assert_close(frames.mean(dim=0), torch.zeros(3, 16), atol=1e-5, rtol=0)
    torch.testing.assert_close(frames.std(dim=0, correction=0), torch.ones(3, 16), atol=1e-5, rtol=0)


def test_a_score_net_is_not_asked_beyond_its_levels():
    model, mask = tiny_model(preset="released"), torch.tensor([[True, False, True]])
    with pytest.raises(UserError, match=r"starts at noise level 40, the score net knows 9\.8. at most"):
        model.recover({m: torch.zeros(1, 16, 4) for m in WIDTHS}, mask, sampler=Sampler("heun", 3))
    model.recover({m: torch.zeros(1, 16, 4) for m in WIDTHS}, mask, sampler=Sampler("heun", 3, "released"))


def test_unknown_names_raise():
    with pytest.raises(UserError, match="recoverer"):
        tiny_model(recoverer="magic")
    with pytest.raises(UserError, match="preset"):
        model_preset("mosi", preset="paper")
    assert model_preset("mosi", preset="released").rules == PRESETS["released"]["rules"]


def test_windows_are_the_neighbouring_steps_with_zero_padding():
    x = torch.randn(2, 3, 7)
    w = windows(x).unflatten(2, (9, 3))  # (N, T, offset + 4, C)
    for t in range(7):
        for offset in range(-4, 5):
            inside = 0 <= t + offset < 7
            assert torch.equal(w[:, t, offset + 4], x[:, :, t + offset] if inside else torch.zeros(2, 3))
    assert windows(torch.ones(1, 2, 1)).shape == (1, 1, 18)


ONE = torch.tensor([[True, False]])


def test_linear_mean_recovers_a_linear_map_of_nine_steps():
    g = torch.Generator().manual_seed(0)
    a, kernel = torch.randn(400, 3, 12, generator=g), torch.randn(3, 3, 9, generator=g) / 27**0.5
    x = torch.stack([a, F.conv1d(a, kernel, padding=4)], dim=1)
    linear = LinearMean(2, 3)
    linear.fit(x[:300])
    found = linear(x[300:], ONE.expand(100, 2))
    torch.testing.assert_close(found[:, 1], x[300:, 1], atol=1e-3, rtol=0)
    hidden = torch.where(ONE[..., None, None], x[300:], 7.0)
    assert torch.equal(linear(hidden, ONE.expand(100, 2)), found)  # missing latents are never read
    assert not found[:, 0].any()  # available latents are not estimated


@pytest.mark.parametrize("noise", [1.0, 0.3])
def test_linear_mean_is_ridge_regression_with_a_held_out_penalty(noise):
    g = torch.Generator().manual_seed(0)
    a, own = torch.randn(2, 100, 2, 6, generator=g)
    x = torch.stack([a, (1 - noise**2) ** 0.5 * a.roll(1, -1) + noise * own], dim=1)  # noise 1: independent of a
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


@pytest.mark.parametrize("draws", [0, 1, 5, 16, 100])
def test_passes_hold_each_draw_once_and_are_equal_on_a_gpu(draws):
    for kind, size in (("cpu", 48), ("cuda", 686), ("cuda", 9000)):
        parts = list(passes(draws, size, torch.device(kind)))
        assert sum(len(ks) * len(range(size)[rows]) for ks, rows in parts) == draws * size
        assert sorted({k for ks, _ in parts for k in ks}) == list(range(draws))
    counts = [len(ks) for ks, _ in passes(draws, 686, torch.device("cuda"))]
    assert counts == {16: [4, 4, 4, 4]}.get(draws, counts) and max(counts, default=0) * 686 <= GPU_ROWS
