"""Samplers: they turn noise into a sample by repeated calls of a denoiser.

All samplers have one signature: (denoise, sigmas (n+1,) decreasing to 0, x at level sigmas[0], condition, noise,
callback), then their own settings as keywords. They return x at level 0. The callback, for plots, receives (step,
sigma, x, denoised) once per step.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from imder_lib.diffusion.denoiser import Denoiser, score_of
from imder_lib.diffusion.noise import Noise, normal
from imder_lib.diffusion.schedules import SCHEDULES, released_times
from imder_lib.diffusion.schedules import sigmas as levels
from imder_lib.diffusion.sde import VESDE
from imder_lib.errors import UserError, unknown
from imder_lib.settings import whole_number

Callback = Callable[[int, Tensor, Tensor, Tensor], None]
CONTRACT = ("denoise", "sigmas", "times", "x", "condition", "noise", "callback", "sde")


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
    """Euler-Maruyama on the reverse SDE, as in the release (IMDer eq. 5); takes times in place of sigmas.

    Returns the last mean; like the release, it draws noise at the last step too, and discards it.
    """
    if len(times) < 2:
        raise UserError(f"steps must be at least 2 (Euler-Maruyama needs a step size), got {len(times)}")
    sde, ones, first = sde or VESDE(), x.new_ones(len(x)), times[0] - times[1]
    steps = -times.diff()
    even = torch.allclose(steps, first, rtol=1e-3)  # the release uses the first step size throughout
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
    """Heun's second-order ODE solver (Karras et al., 2022, algorithm 1): two calls per step, one at the last step."""
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
def dpmpp(
    denoise: Denoiser,
    sigmas: Tensor,
    x: Tensor,
    condition: Any = None,
    noise: Noise = None,
    callback: Callback | None = None,
    eta: float = 0.5,
    order: int = 3,
) -> Tensor:
    """(SDE-)DPM-Solver++, one call a step (Lu et al., 2022).

    The denoised sample is extrapolated in log sigma, by a line (order 2) or a parabola (order 3) through the last ones,
    and integrated exactly against the decay of x.

    Args:
        eta: amount of new noise, from 0 (the ODE) to 1 (the full SDE).
        order: 2 or 3.
    """
    if not 0 <= eta <= 1:
        raise UserError(f"eta must lie in [0, 1], got {eta}")
    ones, past = x.new_ones(len(x)), []  # (log(1 / sigma), denoised), latest first
    for i, (s, s_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, s * ones, condition)
        if callback is not None:
            callback(i, s, x, denoised)
        if s_next == 0:
            return denoised
        past = [(-s.log(), denoised), *past[: order - 1]]
        h, k = (s / s_next).log(), 1 + eta
        decay = (-h * k).exp()  # weight of x; the denoised sample has the rest
        x = decay * x + (1 - decay) * denoised
        slopes = [(a[1] - b[1]) / (a[0] - b[0]) for a, b in pairwise(past)]
        curve = (slopes[0] - slopes[1]) / (past[0][0] - past[2][0]) if len(slopes) == 2 else 0.0
        if slopes:
            first = h - (1 - decay) / k if order == 3 else (1 - decay) * h / 2  # order 2: midpoint rule
            x = x + first * (slopes[0] + curve * (past[0][0] - past[1][0])) + (h**2 - 2 * first / k) * curve
        if eta:
            x = x + s_next * (1 - (-2 * eta * h).exp()).sqrt() * normal(x, noise)
    return x


# To add a sampler: SAMPLERS["name"] = function. Its settings are keywords after the six common arguments.
SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "em": em,
    "heun": heun,
    "dpmpp_2m": partial(dpmpp, order=2, eta=0.0),
    "dpmpp_2m_sde": partial(dpmpp, order=2),
    "dpmpp_3m_sde": partial(dpmpp, order=3),
}


@dataclass(frozen=True)
class Sampler:
    """Sampler, schedule and settings of one draw. An unknown name or setting is a UserError, as is a bad value."""

    name: str = "dpmpp_3m_sde"  # one of SAMPLERS
    steps: int = 20  # network calls >= 1; "heun" uses an odd number, so it rounds an even one down
    schedule: str = "geometric"  # one of SCHEDULES
    settings: Mapping[str, float] = field(default_factory=dict)  # keywords of the sampler, such as {"eta": 0.5}
    # Classifier-free guidance weight w (Ho & Salimans, 2022): D0 + w (D - D0), where D0 is the denoiser without
    # condition. 0: no condition; 1: the trained denoiser; above 1: a stronger condition. Values other than 1 need net
    # "joint" and two network calls per step.
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in SAMPLERS:
            raise unknown("unknown sampler", self.name, SAMPLERS)
        if self.schedule not in SCHEDULES:
            raise unknown("unknown schedule", self.schedule, SCHEDULES)
        whole_number("steps", self.steps)
        if self.guidance < 0:
            raise UserError(f"guidance must be at least 0, got {self.guidance}")
        fixed = {*CONTRACT, *getattr(SAMPLERS[self.name], "keywords", {})}  # by the contract or by partial
        own = [k for k in inspect.signature(SAMPLERS[self.name]).parameters if k not in fixed]
        for k, v in self.settings.items():
            if k not in own:
                raise UserError(f"sampler {self.name!r} has no setting {k!r}: its settings are {own}")
            if isinstance(v, bool) or not isinstance(v, int | float):
                raise UserError(f"setting {k!r} of sampler {self.name!r} must be a number, got {v!r}")

    def draw(
        self,
        denoise: Denoiser,
        like: Tensor,
        condition: Any = None,
        noise: Noise = None,
        callback: Callback | None = None,
        sde: VESDE | None = None,
    ) -> Tensor:
        """Draw a sample with the shape (B, ...), device and dtype of ``like``.

        Args:
            denoise: (x, sigma, condition) -> x0.
            like: gives shape, device and dtype; its values are not read.
            condition, noise, callback: see the module.
            sde: used by schedule "released" and sampler "em".
        """
        run, sde, args = SAMPLERS[self.name], sde or VESDE(), (condition, noise, callback)
        calls = (self.steps + 1) // 2 if run is heun else self.steps
        # On the host: a GPU need not be waited for at each step.
        path = levels(self.schedule, calls, sde).to(like.dtype)
        x = normal(like, noise) * path[0]
        if run is not em:
            return run(denoise, path, x, *args, **self.settings)
        times = released_times(calls).to(like.dtype) if self.schedule == "released" else sde.time(path[:-1])
        return em(denoise, times, x, *args, sde)
