"""The loss of EDM: its noise levels, and its weight of errors."""

import pytest
import torch

from imder_lib.diffusion.denoiser import EDMDenoiser
from imder_lib.diffusion.losses import edm_error


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_loss_of_a_net_of_zeros_is_one_at_every_noise_level(scale):
    """By the weight of errors, for normal data of the net's scale; levels are log-normal around exp(-.5)."""
    generator, levels = torch.Generator().manual_seed(0), []

    def nothing(x, c_noise, condition):
        levels.append(4 * c_noise)
        return torch.zeros_like(x)

    x0 = scale * torch.randn(20_000, 4, 4, generator=generator)
    error = edm_error(EDMDenoiser(nothing, scale), x0, None, generator, sigma_data=scale)
    assert error.shape == x0.shape
    (level,) = levels
    expected = torch.tensor([-0.5 - 1.2816 * 1.7, -0.5, -0.5 + 1.2816 * 1.7])
    torch.testing.assert_close(level.quantile(torch.tensor([0.1, 0.5, 0.9])), expected, atol=0.08, rtol=0)
    groups = error.mean(dim=(1, 2))[level.argsort()].reshape(20, -1).mean(dim=1)  # from low to high noise
    torch.testing.assert_close(groups, torch.ones(20), atol=0.06, rtol=0)
