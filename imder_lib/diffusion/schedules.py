"""Noise schedules: the times or noise levels of a given number of sampler steps."""

import math

import torch
from torch import Tensor

from imder_lib.diffusion.sde import VESDE
from imder_lib.errors import UserError
from imder_lib.settings import whole_number

T_END = 1e-3  # last time of the release, where std = 0.0317
SIGMA_MIN, SIGMA_MAX, RHO = 0.005, 40.0, 7.0  # defaults for standardised latents


def released_times(steps: int) -> Tensor:
    """The release's times: (steps,), evenly spaced from 1 to 1e-3."""
    whole_number("steps", steps)
    return torch.linspace(1.0, T_END, steps)


def released(steps: int, sde: VESDE) -> Tensor:
    """std at the release's times, then 0: (steps + 1,)."""
    return torch.cat([sde.std(released_times(steps)), torch.zeros(1)])


def karras(steps: int, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX, rho: float = RHO) -> Tensor:
    """Levels of Karras et al. (2022), eq. 5, from sigma_max to sigma_min, then 0: (steps + 1,)."""
    check_levels(steps, sigma_min, sigma_max)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(high + torch.linspace(0, 1, steps) * (low - high)) ** rho, torch.zeros(1)])


def geometric(steps: int, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX) -> Tensor:
    """Levels evenly spaced in log sigma, then 0: (steps + 1,). As in Song et al. (2021), section 3.4."""
    check_levels(steps, sigma_min, sigma_max)
    levels = torch.linspace(math.log(sigma_max), math.log(sigma_min), steps).exp()
    return torch.cat([levels, torch.zeros(1)])


# name -> function of steps and SDE, which gives levels that decrease to 0: (steps + 1,)
SCHEDULES = {"released": released, "karras": lambda steps, sde: karras(steps),
             "geometric": lambda steps, sde: geometric(steps)}  # fmt: skip


def check_levels(steps: int, sigma_min: float, sigma_max: float) -> None:
    """Raise a UserError unless there is a step, and 0 < sigma_min < sigma_max <= 1e4."""
    whole_number("steps", steps)
    if not 0 < sigma_min < sigma_max <= 1e4:
        raise UserError(f"sigma: expected 0 < sigma_min < sigma_max <= 1e4, got {sigma_min:g} and {sigma_max:g}")
