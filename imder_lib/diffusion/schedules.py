"""Noise schedules: the times or noise levels of a given number of sampler steps."""

import math

import torch
from torch import Tensor

from imder_lib.diffusion.sde import VESDE
from imder_lib.settings import whole_number

T_END = 1e-3  # last time of the release, where std = 0.0317
SIGMA_MIN, SIGMA_MAX = 0.005, 40.0  # for standardised latents


def released_times(steps: int) -> Tensor:
    """The release's times: (steps,), evenly spaced from 1 to 1e-3."""
    whole_number("steps", steps)
    return torch.linspace(1.0, T_END, steps)


def released(steps: int, sde: VESDE) -> Tensor:
    """std at the release's times, then 0: (steps + 1,)."""
    return torch.cat([sde.std(released_times(steps)), torch.zeros(1)])


def karras(steps: int, sde: VESDE | None = None) -> Tensor:
    """Levels of Karras et al. (2022), eq. 5, with rho = 7, from SIGMA_MAX to SIGMA_MIN, then 0: (steps + 1,)."""
    high, low = SIGMA_MAX ** (1 / 7), SIGMA_MIN ** (1 / 7)
    return torch.cat([(high + torch.linspace(0, 1, whole_number("steps", steps)) * (low - high)) ** 7, torch.zeros(1)])


def geometric(steps: int, sde: VESDE | None = None) -> Tensor:
    """Levels evenly spaced in log sigma from SIGMA_MAX to SIGMA_MIN, then 0: (steps + 1,).

    As in Song et al. (2021), section 3.4.
    """
    levels = torch.linspace(math.log(SIGMA_MAX), math.log(SIGMA_MIN), whole_number("steps", steps)).exp()
    return torch.cat([levels, torch.zeros(1)])


# name -> function of steps and SDE, which gives levels that decrease to 0: (steps + 1,)
SCHEDULES = {"released": released, "karras": karras, "geometric": geometric}
