"""Samplers on one contract: from noise at the highest level down to a sample, by calls of a denoiser.

Every sampler takes (denoise, sigmas (n+1,) falling to 0, x at level sigmas[0], condition, noise, callback) and returns
x at level 0. A callback gets (step, sigma, x, denoised) once a step; plots come from it for free.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from imder_lib.diffusion.denoiser import Denoiser, score_of
from imder_lib.diffusion.noise import Noise, normal
from imder_lib.diffusion.schedules import released_times
from imder_lib.diffusion.schedules import sigmas as levels
from imder_lib.diffusion.sde import VESDE
from imder_lib.errors import UserError

Callback = Callable[[int, Tensor, Tensor, Tensor], None]


@torch.no_grad()
def em(
    denoise: Denoiser,
    times: Tensor,
    x: Tensor,
    condition: Any = None,
    noise: Noise = None,
    callback: Callback | None = None,
    sde: VESDE | None = None,
) -> Tensor:
    """Euler-Maruyama on the reverse SDE, as the release does it (IMDer eq. 5); visits times, not levels.

    Draws one noise at each step, at the last too (and discards it). Returns the last mean.
    """
    if len(times) < 2:
        raise UserError(f"steps must be at least 2 (Euler-Maruyama needs a step size), got {len(times)}")
    sde, ones, first = sde or VESDE(), x.new_ones(len(x)), times[0] - times[1]
    steps = -times.diff()
    even = torch.allclose(steps, first, rtol=1e-3)  # as the release's: it takes the first step for all
    steps = first.expand(len(times)) if even else torch.cat([steps, times[-1:]])
    mean = x
    for i, (t, h) in enumerate(zip(times, steps, strict=True)):
        g = sde.g(t)
        mean = x + g**2 * score_of(denoise, sde, x, t * ones, condition) * h
        x = mean + h.sqrt() * g * normal(x, noise)
        if callback is not None:
            callback(i, sde.std(t), x, mean)
    return mean


@torch.no_grad()
def heun(
    denoise: Denoiser,
    sigmas: Tensor,
    x: Tensor,
    condition: Any = None,
    noise: Noise = None,
    callback: Callback | None = None,
) -> Tensor:
    """Heun's second-order ODE solver (Karras et al., 2022, algorithm 1): two calls a step, one at the last."""
    ones = x.new_ones(len(x))
    for i, (s, s_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, s * ones, condition)
        slope = (x - denoised) / s
        x_next = x + (s_next - s) * slope
        if s_next > 0:
            slope_next = (x_next - denoise(x_next, s_next * ones, condition)) / s_next
            x_next = x + (s_next - s) * (slope + slope_next) / 2
        if callback is not None:
            callback(i, s, x, denoised)
        x = x_next
    return x


@torch.no_grad()
def dpmpp_2m_sde(
    denoise: Denoiser,
    sigmas: Tensor,
    x: Tensor,
    condition: Any = None,
    noise: Noise = None,
    callback: Callback | None = None,
    eta: float = 1.0,
) -> Tensor:
    """(SDE-)DPM-Solver++(2M), one call a step (Lu et al., 2022); fresh noise in proportion to eta, an ODE at 0."""
    ones, old, h_old = x.new_ones(len(x)), None, None
    for i, (s, s_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, s * ones, condition)
        if callback is not None:
            callback(i, s, x, denoised)
        if s_next == 0:
            return denoised
        h = (s / s_next).log()  # step in log(1 / sigma)
        decay = (-h * (1 + eta)).exp()  # of the sample that was; the rest is the denoised one
        lead = denoised if old is None else denoised + (denoised - old) * h / (2 * h_old)  # extrapolated half a step
        x = decay * x + (1 - decay) * lead
        if eta:
            x = x + s_next * (1 - (-2 * eta * h).exp()).sqrt() * normal(x, noise)
        old, h_old = denoised, h
    return x


def dpmpp_2m(
    denoise: Denoiser,
    sigmas: Tensor,
    x: Tensor,
    condition: Any = None,
    noise: Noise = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M): the same without fresh noise, an ODE solver."""
    return dpmpp_2m_sde(denoise, sigmas, x, condition, noise, callback, eta=0.0)


@torch.no_grad()
def dpmpp_3m_sde(
    denoise: Denoiser,
    sigmas: Tensor,
    x: Tensor,
    condition: Any = None,
    noise: Noise = None,
    callback: Callback | None = None,
    eta: float = 1.0,
) -> Tensor:
    """(SDE-)DPM-Solver++ one order higher: a parabola in log sigma through the last three denoised samples."""
    ones, past = x.new_ones(len(x)), []  # (log(1 / sigma), denoised), the last one first
    for i, (s, s_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, s * ones, condition)
        if callback is not None:
            callback(i, s, x, denoised)
        if s_next == 0:
            return denoised
        past = [(-s.log(), denoised), *past[:2]]
        h, k = (s / s_next).log(), 1 + eta
        decay = (-h * k).exp()
        x = decay * x + (1 - decay) * denoised
        slopes = [(a[1] - b[1]) / (a[0] - b[0]) for a, b in pairwise(past)]
        curve = (slopes[0] - slopes[1]) / (past[0][0] - past[2][0]) if len(slopes) == 2 else 0.0
        if slopes:  # the exact integral of the parabola against the forgetting
            first = h - (1 - decay) / k
            x = x + first * (slopes[0] + curve * (past[0][0] - past[1][0])) + (h**2 - 2 * first / k) * curve
        if eta:
            x = x + s_next * (1 - (-2 * eta * h).exp()).sqrt() * normal(x, noise)
    return x


# One more is one more entry: SAMPLERS["mine"] = mine, with the arguments of dpmpp_2m.
SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "em": em,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "dpmpp_3m_sde": dpmpp_3m_sde,
}


def sample(
    sampler: str,
    schedule: str,
    steps: int,
    denoise: Denoiser,
    like: Tensor,
    condition: Any = None,
    noise: Noise = None,
    callback: Callback | None = None,
    sde: VESDE | None = None,
    eta: float = 1.0,
) -> Tensor:
    """Draw a sample by name of sampler and schedule.

    Args:
        sampler: one of :data:`SAMPLERS`.
        schedule: "released", "karras" or "geometric".
        steps: network calls >= 1 (heun: an even number is rounded down to the odd one below).
        denoise: (x, sigma, condition) -> x0.
        like: gives shape (B, ...), device and dtype of the sample.
        condition, noise, callback, sde: see the samplers.
        eta: of "dpmpp_2m_sde" and "dpmpp_3m_sde": the share of fresh noise, 0 to 1.

    Returns:
        (B, ...)
    """
    if sampler not in SAMPLERS:
        raise UserError(f"unknown sampler {sampler!r}: expected one of {list(SAMPLERS)}")
    sde = sde or VESDE()
    path = levels(schedule, (steps + 1) // 2 if sampler == "heun" and steps >= 1 else steps, sde).to(like)
    x = normal(like, noise) * path[0]
    if sampler in ("dpmpp_2m_sde", "dpmpp_3m_sde"):
        return SAMPLERS[sampler](denoise, path, x, condition, noise, callback, eta)
    if sampler != "em":
        return SAMPLERS[sampler](denoise, path, x, condition, noise, callback)
    times = released_times(steps).to(like) if schedule == "released" else sde.time(path[:-1])
    return em(denoise, times, x, condition, noise, callback, sde)
