"""The Gaussian pair: samplers against closed forms, for all noise rules."""

import pytest
import torch

from imder_course.gaussian import GaussianPair
from imder_lib import UserError
from imder_lib.diffusion.denoiser import EDMDenoiser, ScoreDenoiser, sample_condition, score_of
from imder_lib.diffusion.samplers import SAMPLERS, Sampler, adams
from imder_lib.diffusion.schedules import SCHEDULES, geometric, karras, released
from imder_lib.diffusion.sde import VESDE

PAIR, N = GaussianPair(0.8), 40_000
SOLVERS = [("heun", 79), ("dpmpp_2m", 40), ("dpmpp_2m_sde", 40), ("adams", 40), ("em", 400)]


def draws(rule, at, sampler="em", schedule="released", steps=100, seed=0):
    g = torch.Generator().manual_seed(seed)
    c = torch.randn(N, 1, generator=g, dtype=torch.float64)
    denoise = sample_condition(PAIR.denoiser(rule), at, g)
    return Sampler(sampler, steps, schedule).draw(denoise, c, c, g)[:, 0], c[:, 0]


def slope_and_variance(x, c):
    slope = (x * c).mean() / (c * c).mean()
    return slope.item(), (x - slope * c).var().item()


@pytest.mark.parametrize("at", ["fresh", "frozen", "clean"])
@pytest.mark.parametrize("rule", ["shared", "independent", "clean"])
def test_em_agrees_with_its_closed_form(rule, at):
    slope, variance = slope_and_variance(*draws(rule, at))
    exact_slope, exact_variance = PAIR.sampled(rule, at)
    assert slope == pytest.approx(exact_slope, abs=5 * (exact_variance / N) ** 0.5)
    assert variance == pytest.approx(exact_variance, rel=5 * (2 / N) ** 0.5)


@pytest.mark.parametrize("rule", ["shared", "independent", "clean"])
def test_weights_are_the_least_squares_fit_to_training_pairs(rule):
    g = torch.Generator().manual_seed(1)
    x, c, z, own = torch.randn(4, 400_000, generator=g, dtype=torch.float64)
    c, sigma = 0.8 * x + 0.6 * c, 1.5
    seen = c + sigma * {"shared": z, "independent": own, "clean": 0 * z}[rule]
    fitted = torch.linalg.lstsq(torch.stack([x + sigma * z, seen], 1), x[:, None]).solution[:, 0]
    torch.testing.assert_close(torch.stack(PAIR.weights(torch.tensor(sigma).double(), rule)), fitted, atol=0.01, rtol=0)


def test_the_clean_rule_gives_the_posterior_and_the_shared_rule_does_not():
    slope, variance = PAIR.sampled("clean", "clean", steps=2000)
    assert slope == pytest.approx(0.8, abs=0.01)
    assert variance == pytest.approx(0.36, abs=0.01)
    slope, variance = PAIR.sampled("shared", "fresh", steps=2000)
    assert slope < 0  # wrong sign: the optimal denoiser subtracts the condition
    assert variance > 1


@pytest.mark.parametrize(("sampler", "steps"), SOLVERS)
def test_every_sampler_reaches_the_posterior_under_the_clean_rule(sampler, steps):
    schedule = "released" if sampler == "em" else "karras"
    slope, variance = slope_and_variance(*draws("clean", "clean", sampler, schedule, steps))
    assert slope == pytest.approx(0.8, abs=0.02)
    assert variance == pytest.approx(0.36, rel=0.05)


def variance_error(sampler):
    """Largest relative error of the variance of draws, for directions of variance .1 to 30 and the exact denoiser."""
    variance = torch.tensor([0.1, 0.3, 1.0, 3.0, 30.0], dtype=torch.float64)
    like, g = torch.zeros(N, 5, dtype=torch.float64), torch.Generator().manual_seed(1)
    x = sampler.draw(lambda x, sigma, condition: variance / (variance + sigma[:, None] ** 2) * x, like, noise=g)
    return float((x.var(dim=0) / variance - 1).abs().max())


def test_the_default_sampler_has_the_smallest_variance_error_at_equal_calls():
    own = variance_error(Sampler())
    half = {"eta": 0.5}
    others = [Sampler("dpmpp_2m_sde", settings=half), Sampler("dpmpp_2m_sde", schedule="karras"), Sampler("dpmpp_2m")]
    assert own < 0.05
    assert own < min(variance_error(other) for other in others)


def ode_error(calls, **settings):
    """Relative error of Adams' ODE solution for a direction of variance 1, whose exact solution is known."""
    path = geometric(calls).double()
    x = adams(lambda x, sigma, condition: x / (1 + sigma[:, None] ** 2), path, path[:1, None], eta=0.0, **settings)
    return float((x / path[0] * (1 + path[0] ** 2).sqrt() - 1).abs())


def test_adams_is_of_third_order_and_its_correction_pays():
    assert ode_error(40, correct=False) < ode_error(20, correct=False) / 7
    assert ode_error(15) < ode_error(15, correct=False) / 2
    assert ode_error(20, correct=False) < ode_error(20, correct=False, order=2) / 2


def test_adams_adds_noise_above_a_level_only():
    def drawn(**settings):
        g = torch.Generator().manual_seed(1)
        return Sampler(settings=settings).draw(PAIR.denoiser("clean"), torch.zeros(9, 1), torch.ones(9, 1), g)

    assert torch.equal(drawn(above=1e3), drawn(eta=0.0))
    assert not torch.equal(drawn(above=1e3), drawn())
    assert not torch.equal(drawn(above=0.0), drawn())


def test_em_supports_uneven_steps():
    slope, variance = slope_and_variance(*draws("clean", "clean", "em", "karras", 400))
    assert slope == pytest.approx(0.8, abs=0.02)
    assert variance == pytest.approx(0.36, rel=0.06)


def test_score_and_denoiser_are_equivalent():
    sde, t = VESDE(), torch.tensor([0.2, 0.7, 1.0], dtype=torch.float64)
    x, c = torch.randn(2, 3, 2, 5, dtype=torch.float64)
    denoise = PAIR.denoiser("clean")
    again = ScoreDenoiser(lambda x, t, c: score_of(denoise, sde, x, t, c), sde)
    torch.testing.assert_close(again(x, sde.std(t), c), denoise(x, sde.std(t), c))


def test_preconditioning_of_a_zero_net_is_the_optimal_linear_denoiser():
    x, sigma = torch.randn(4, 2, 3), torch.tensor([0.01, 0.1, 1.0, 40.0])
    out = EDMDenoiser(lambda x, level, condition: torch.zeros_like(x))(x, sigma, None)
    torch.testing.assert_close(out, x / (1 + sigma[:, None, None] ** 2))  # for data of variance 1


def test_callback_sees_every_step_and_calls_are_counted():
    for name in SAMPLERS:
        calls, seen = [], []

        def denoise(x, sigma, condition, calls=calls):
            calls.append(sigma)
            return x / (1 + sigma[:, None] ** 2)

        like = torch.zeros(2, 3)

        def keep(i, s, x, d, seen=seen):
            torch.testing.assert_close(d, x / (1 + s**2))  # what the denoiser makes of x at level s
            seen.append(i)

        Sampler(name, 9, "karras").draw(denoise, like, callback=keep)
        assert len(calls) == 9
        assert seen == list(range(5 if name == "heun" else 9))


def test_schedules():
    assert karras(5)[0] == pytest.approx(40, rel=1e-5)
    assert released(3, VESDE())[0] == pytest.approx(9.845, abs=1e-3)
    assert geometric(3)[:3].tolist() == pytest.approx([40, (40 * 0.005) ** 0.5, 0.005], rel=1e-5)
    for s in (karras(7), geometric(7), released(7, VESDE())):
        assert s[-1] == 0
        assert (s[:-1] > s[1:]).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: Sampler("em", 1, "released").draw(None, torch.zeros(1, 1)),
        lambda: SCHEDULES["karras"](-1, VESDE()),
        lambda: geometric(0),
        lambda: sample_condition(None, "noisy"),
        lambda: PAIR.weights(torch.ones(1), "some"),
        lambda: PAIR.sampled("clean", "never"),
    ],
)
def test_bad_arguments_raise(call):
    with pytest.raises(UserError):
        call()
