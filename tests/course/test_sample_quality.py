"""Sample quality and the posterior check: exact draws reach the ideal values, other draws do not."""

import numpy as np
import pytest
import torch
from conftest import tiny_model
from torch.nn.functional import conv1d

from imder_course.posterior_check import latent_posteriors, posterior_check
from imder_course.sample_quality import sample_quality
from imder_lib import IMDer, ModelConfig, UserError, changed, exact_posterior, load_data
from imder_lib.diffusion.samplers import Sampler
from imder_lib.model.recovery import encode_split

RHO, K, N = 0.8, 16, 400


def case(seed=0):
    rng = np.random.default_rng(seed)
    c = rng.standard_normal((N, 6, 3))
    y = RHO * c + np.sqrt(1 - RHO**2) * rng.standard_normal(c.shape)
    draws = RHO * c + np.sqrt(1 - RHO**2) * rng.standard_normal((K, *c.shape))
    return c, y, draws


def values(*args, **kw):
    table = sample_quality(*args, **kw).set_index("metric")
    inside = table.dropna()
    assert ((inside["low"] <= inside["value"] + 1e-9) & (inside["value"] <= inside["high"] + 1e-9)).all()
    return table["value"]


def test_exact_draws_have_the_theoretical_values():
    c, y, draws = case()
    v = values(draws, y, c, RHO * c)
    assert v["mse"] == pytest.approx(2 * (1 - RHO**2), abs=0.04)
    assert v["corr_one"] == pytest.approx(RHO, abs=0.02)
    assert v["corr_mean"] == pytest.approx(RHO / np.sqrt(RHO**2 + (1 - RHO**2) / K), abs=0.01)
    assert v["variance_ratio"] == pytest.approx(1, abs=0.05)
    for p in (50, 80, 95):
        assert v[f"cover{p}"] == pytest.approx(p / 100, abs=0.02)
    assert v["sliced_w2"] < 0.15
    regressed = values(draws, y, c)  # the posterior mean is estimated by regression
    assert regressed["corr_one"] == pytest.approx(RHO, abs=0.03)


@pytest.mark.parametrize("spoil", ["prior", "point", "wide"])
def test_worse_draws_have_worse_metrics(spoil):
    c, y, draws = case()
    bad = {
        "prior": np.random.default_rng(5).standard_normal(draws.shape),
        "point": 0 * draws + RHO * c,
        "wide": RHO * c + 2 * (draws - RHO * c),
    }
    good, bad = values(draws, y, c, RHO * c), values(bad[spoil], y, c, RHO * c)
    assert bad["energy"] > 1.05 * good["energy"]
    assert abs(bad["cover80"] - 0.8) > 0.1 or bad["corr_one"] < 0.1


def test_differences_are_resampled_in_pairs():
    c, y, draws = case()
    wider = RHO * c + 1.02 * (draws - RHO * c)  # the same draws, slightly wider
    apart = sample_quality(wider, y, c, RHO * c, against=draws).set_index("metric")
    own, other = (sample_quality(x, y, c, RHO * c).set_index("metric") for x in (wider, draws))
    assert apart["value"].to_dict() == pytest.approx((own["value"] - other["value"]).to_dict())
    assert own.loc["variance_ratio", "low"] < other.loc["variance_ratio", "high"]  # the intervals overlap,
    assert apart.loc["variance_ratio", "low"] > 0  # but the paired difference is significant
    assert sample_quality(draws, y, c, against=draws).set_index("metric").dropna().eq(0).all().all()
    with pytest.raises(UserError, match="the shape of recovered"):  # the mean of more draws would have an advantage
        sample_quality(draws, y, c, against=draws[:4])


def test_intervals_hold_95_percent_of_the_resamples():
    """Of the energy score, a mean over samples: 2 x 1.96 standard errors wide, around the value."""
    c, y, draws = case()
    row = sample_quality(draws[:2], y, c, RHO * c).set_index("metric").loc["energy"]
    a, b, y = (x.reshape(N, -1) for x in (*draws[:2], y))
    size = lambda v: np.linalg.norm(v, axis=1)  # noqa: E731
    each = (size(a - y) + size(b - y)) / 2 - size(a - b) / 2
    error = each.std() / N**0.5
    assert row["value"] == pytest.approx(each.mean())
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * error, rel=0.25)
    assert (row["high"] + row["low"]) / 2 == pytest.approx(each.mean(), abs=0.5 * error)


def test_constant_elements_are_left_out():
    c, y, draws = case()
    constant = np.full((N, 6, 5), 3.0)
    more = np.concatenate([draws, np.broadcast_to(constant, (K, *constant.shape))], axis=-1)
    got = values(more, np.concatenate([y, constant], -1), c, np.concatenate([RHO * c, constant], -1))
    want = values(draws, y, c, RHO * c)
    assert got.drop("sliced_w2").to_dict() == pytest.approx(want.drop("sliced_w2").to_dict())
    with pytest.raises(UserError, match="the same for every sample"):
        sample_quality(np.stack([constant, constant]), constant, c, constant)


def test_bad_shapes_raise():
    c, y, draws = case()
    for args in ((draws[0], y, c), (draws, y[:-1], c), (draws, y, c[:-1]), (draws * np.nan, y, c)):
        with pytest.raises(UserError):
            sample_quality(*args)


def test_exact_latents_are_those_of_exact_features(data):
    model, split = tiny_model().eval(), data.test.first(3)
    mean, draws = latent_posteriors(model, split, ["text"], 400)
    assert list(mean) == list(draws) == ["audio", "vision"]
    for m in mean:
        posterior = exact_posterior(data.process, split.features, m, ["text"])
        encoder = model.encoders[m].weight.detach().double()  # (D, D_m, 3), over steps
        expected = conv1d(torch.from_numpy(posterior.mean).swapaxes(1, 2), encoder).numpy()
        np.testing.assert_allclose(mean[m], expected, atol=1e-5)
        error = draws[m].std(axis=0) / 400**0.5
        assert np.abs((draws[m].mean(axis=0) - expected) / error).mean() == pytest.approx(0.8, abs=0.15)  # of a normal


def test_posterior_check_has_recovered_and_exact_rows(data):
    model = tiny_model().eval()
    model.recoverer.prepare(encode_split(model, data.train))
    table = posterior_check(model, data, [("audio", "vision"), ("text",)], draws=4)
    assert set(table["method"]) == {"recovered", "exact"}
    assert set(table["pattern"]) == {"audio+vision", "text"}
    exact = table[table["method"] == "exact"].set_index(["pattern", "metric"])["value"]
    assert exact["text", "variance_ratio"] == pytest.approx(1, abs=0.2)


def test_posterior_check_knows_a_modality_without_an_encoder():
    data = load_data(
        "gaussian", sizes={"train": 60, "valid": 8, "test": 200}, widths={"gesture": 8, "text": 8}, steps=6
    )
    sizes = {"fusion": {"heads": 2, "layers": 1}, "joint": {"channels": 8}}
    model = IMDer(changed(ModelConfig(data.widths), dim=8, **sizes), 1)
    model.recoverer.prepare(encode_split(model, data.train))
    assert not model.encoders
    table = posterior_check(model, data, [("gesture",)], draws=4)
    exact = table[table["method"] == "exact"].set_index("metric")["value"]
    assert exact["variance_ratio"] == pytest.approx(1, abs=0.1)
    assert exact["cover80"] == pytest.approx(0.8, abs=0.02)


def test_posterior_check_compares_samplers_with_the_first(data):
    model = tiny_model().eval()
    model.recoverer.prepare(encode_split(model, data.train))
    samplers = {"twelve": Sampler(steps=12), "same": Sampler(steps=12), "two": Sampler("em", 2)}
    table = posterior_check(model, data, [("text",)], draws=3, samplers=samplers)
    table = table.set_index(["method", "metric"])["value"]
    assert set(table.index.unique(0)) == {*samplers, "exact", "same - twelve", "two - twelve"}
    assert table["same - twelve"].eq(0).all()
    assert table["two - twelve", "energy"] == pytest.approx(table["two", "energy"] - table["twelve", "energy"])
    assert table["two - twelve", "energy"] != 0
    with pytest.raises(UserError, match="use another name"):
        posterior_check(model, data, [("text",)], draws=3, samplers={"exact": Sampler()})
