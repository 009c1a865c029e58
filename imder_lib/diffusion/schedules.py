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
    whole_number("steps", steps)
    check_sigma(torch.tensor([sigma_min, sigma_max]))
    if sigma_min >= sigma_max:
        raise UserError(f"sigma: expected sigma_min < sigma_max, got {sigma_min:g} and {sigma_max:g}")
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return torch.cat([(high + torch.linspace(0, 1, steps) * (low - high)) ** rho, torch.zeros(1)])


def geometric(steps: int, sigma_min: float = SIGMA_MIN, sigma_max: float = SIGMA_MAX) -> Tensor:
    """Levels evenly spaced in log sigma, then 0: (steps + 1,). As in Song et al. (2021), section 3.4."""
    whole_number("steps", steps)
    check_sigma(torch.tensor([sigma_min, sigma_max]))
    levels = torch.linspace(math.log(sigma_max), math.log(sigma_min), steps).exp()
    return torch.cat([levels, torch.zeros(1)])


SCHEDULES = {"released": released, "karras": lambda steps, sde: karras(steps),
             "geometric": lambda steps, sde: geometric(steps)}  # fmt: skip


def sigmas(schedule: str, steps: int, sde: VESDE) -> Tensor:
    """Levels of the named schedule, decreasing to 0: (steps + 1,)."""
    return SCHEDULES[schedule](steps, sde)


def check_sigma(sigma: Tensor, low: float = 0.0, high: float = 1e4) -> None:
    """Raise a UserError unless all noise levels are finite and in (low, high]."""
    if not bool((torch.isfinite(sigma) & (sigma > low) & (sigma <= high)).all()):
        raise UserError(f"sigma must lie in ({low:g}, {high:g}], got {sigma.min():.4g} to {sigma.max():.4g}")
