"""Score, denoiser and conditional of the mixture against derivatives, integrals and samples."""

import pytest
import torch

from imder_course.mixture import Mixture
from imder_lib import UserError
from imder_lib.diffusion.samplers import Sampler

TWO = Mixture(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[-2.0, 0.5], [1.0, -0.5]], dtype=torch.float64),
    torch.tensor([0.5, 0.8], dtype=torch.float64),
)


def test_score_is_the_gradient_of_the_log_density():
    x = torch.randn(50, 2, dtype=torch.float64, requires_grad=True)
    sigma = torch.linspace(0.05, 5, 50, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(TWO.density(x, sigma).log().sum(), x)
    torch.testing.assert_close(TWO.score(x, sigma), gradient)


@pytest.mark.parametrize("sigma", [0.1, 2.0])
def test_density_integrates_to_one_and_the_denoiser_is_the_posterior_mean(sigma):
    one = TWO.given(0.2)
    grid = torch.linspace(-20, 20, 8001, dtype=torch.float64)
    at = torch.full_like(grid, sigma)
    assert torch.trapezoid(one.density(grid[:, None], at), grid).item() == pytest.approx(1, abs=1e-6)
    clean = one.density(grid[:, None], torch.zeros_like(grid))
    x = torch.tensor([[-1.5], [0.0], [3.0]], dtype=torch.float64)
    posterior = clean * torch.exp(-((x - grid) ** 2) / (2 * sigma**2))  # (3, grid)
    mean = torch.trapezoid(posterior * grid, grid) / torch.trapezoid(posterior, grid)
    torch.testing.assert_close(one.denoise(x, at[:3])[:, 0], mean)


def test_conditional_agrees_with_samples_near_the_condition():
    x = TWO.sample(400_000, torch.Generator().manual_seed(0))
    near = x[(x[:, 1] - 0.2).abs() < 0.02, 0]
    grid = torch.linspace(-6, 6, 2001, dtype=torch.float64)
    p = TWO.given(0.2).density(grid[:, None], torch.zeros_like(grid))
    mean = torch.trapezoid(p * grid, grid)
    variance = torch.trapezoid(p * (grid - mean) ** 2, grid)
    assert near.mean().item() == pytest.approx(mean.item(), abs=4 * (variance.item() / len(near)) ** 0.5)
    assert near.var().item() == pytest.approx(variance.item(), rel=0.06)


def test_sampler_draws_both_components_in_proportion():
    g = torch.Generator().manual_seed(0)
    x = Sampler("dpmpp_2m_sde", 40).draw(TWO.denoise, torch.zeros(20_000, 2, dtype=torch.float64), noise=g)
    assert (x[:, 0] < -0.7).double().mean().item() == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize(
    ("weights", "means", "std"),
    [([0.5, 0.6], [[0.0], [1.0]], [1.0, 1.0]), ([1.0], [0.0], [1.0]), ([1.0], [[0.0]], [0.0]), ([1.0], [[0.0]], [])],
)
def test_bad_mixtures_raise(weights, means, std):
    with pytest.raises(UserError):
        Mixture(torch.tensor(weights), torch.tensor(means), torch.tensor(std))
