"""Samplers on one contract: from noise at the highest level down to a sample, by calls of a denoiser.

Every sampler takes (denoise, sigmas (n+1,) falling to 0, x at level sigmas[0], condition, noise, callback) and then its
own settings as keywords, and returns x at level 0. A callback gets (step, sigma, x, denoised) once a step, for plots.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from imder_lib.diffusion.denoiser import Denoiser, score_of
from imder_lib.diffusion.noise import Noise, normal
from imder_lib.diffusion.schedules import SCHEDULES, released_times
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


def dpmpp_3m_sde(
    denoise: Denoiser,
    sigmas: Tensor,
    x: Tensor,
    condition: Any = None,
    noise: Noise = None,
    callback: Callback | None = None,
    eta: float = 0.5,
) -> Tensor:
    """(SDE-)DPM-Solver++ with a parabola in log sigma through the last three denoised samples (Lu et al., 2022).

    Args:
        eta: share of fresh noise, 0 (an ODE) to 1 (the whole SDE).
    """
    return _dpmpp(3, denoise, sigmas, x, condition, noise, callback, eta)


def dpmpp_2m_sde(
    denoise: Denoiser,
    sigmas: Tensor,
    x: Tensor,
    condition: Any = None,
    noise: Noise = None,
    callback: Callback | None = None,
    eta: float = 0.5,
) -> Tensor:
    """The same with a line through the last two denoised samples, (SDE-)DPM-Solver++(2M)."""
    return _dpmpp(2, denoise, sigmas, x, condition, noise, callback, eta)


def dpmpp_2m(
    denoise: Denoiser,
    sigmas: Tensor,
    x: Tensor,
    condition: Any = None,
    noise: Noise = None,
    callback: Callback | None = None,
) -> Tensor:
    """DPM-Solver++(2M), an ODE solver: the line, and no fresh noise."""
    return _dpmpp(2, denoise, sigmas, x, condition, noise, callback, eta=0.0)


@torch.no_grad()
def _dpmpp(
    order: int,
    denoise: Denoiser,
    sigmas: Tensor,
    x: Tensor,
    condition: Any,
    noise: Noise,
    callback: Callback | None,
    eta: float,
) -> Tensor:
    """One call a step: the denoised sample is extrapolated in log sigma and integrated exactly against the decay."""
    if not 0 <= eta <= 1:
        raise UserError(f"eta must lie in [0, 1], got {eta}")
    ones, past = x.new_ones(len(x)), []  # (log(1 / sigma), denoised), the last one first
    for i, (s, s_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, s * ones, condition)
        if callback is not None:
            callback(i, s, x, denoised)
        if s_next == 0:
            return denoised
        past = [(-s.log(), denoised), *past[: order - 1]]
        h, k = (s / s_next).log(), 1 + eta
        decay = (-h * k).exp()  # of x; the rest is the denoised sample
        x = decay * x + (1 - decay) * denoised
        slopes = [(a[1] - b[1]) / (a[0] - b[0]) for a, b in pairwise(past)]
        curve = (slopes[0] - slopes[1]) / (past[0][0] - past[2][0]) if len(slopes) == 2 else 0.0
        if slopes:
            first = h - (1 - decay) / k if order == 3 else (1 - decay) * h / 2  # 2: half a step ahead, less wide
            x = x + first * (slopes[0] + curve * (past[0][0] - past[1][0])) + (h**2 - 2 * first / k) * curve
        if eta:
            x = x + s_next * (1 - (-2 * eta * h).exp()).sqrt() * normal(x, noise)
    return x


# One more is one more entry: SAMPLERS["mine"] = mine. Its own settings are keywords after the contract's six arguments.
SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "em": em,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "dpmpp_3m_sde": dpmpp_3m_sde,
}


@dataclass(frozen=True)
class Sampler:
    """How a sample is drawn. Settings without an effect raise a UserError.

    Attributes:
        name: one of :data:`SAMPLERS`.
        steps: network calls >= 1 (heun: an even number is rounded down to the odd one below).
        schedule: of the noise levels: "released", "karras" or "geometric".
        settings: the sampler's own keywords, such as {"eta": 0.5}.
        guidance: how far the condition pulls (Ho & Salimans, 2022): D0 + guidance (D - D0), D0 without a condition. 1:
            the trained denoiser; 0: no condition; above 1: exaggerated. Other than 1: two network calls a step, by the
            net "joint" only.
    """

    name: str = "dpmpp_3m_sde"
    steps: int = 20
    schedule: str = "geometric"
    settings: Mapping[str, float] = field(default_factory=dict)
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in SAMPLERS:
            raise UserError(f"unknown sampler {self.name!r}: expected one of {list(SAMPLERS)}")
        if self.schedule not in SCHEDULES:
            raise UserError(f"unknown schedule {self.schedule!r}: expected one of {list(SCHEDULES)}")
        if isinstance(self.steps, bool) or int(self.steps) != self.steps or self.steps < 1:
            raise UserError(f"steps must be a whole number of at least 1, got {self.steps!r}")
        if self.guidance < 0:
            raise UserError(f"guidance must be at least 0, got {self.guidance}")
        own = [k for k in list(inspect.signature(SAMPLERS[self.name]).parameters)[6:] if k != "sde"]
        if unknown := [k for k in self.settings if k not in own]:
            raise UserError(f"sampler {self.name!r} has no setting {unknown[0]!r}: its settings are {own}")

    def draw(
        self,
        denoise: Denoiser,
        like: Tensor,
        condition: Any = None,
        noise: Noise = None,
        callback: Callback | None = None,
        sde: VESDE | None = None,
    ) -> Tensor:
        """A sample of the shape (B, ...), device and dtype of ``like``.

        Args:
            denoise: (x, sigma, condition) -> x0.
            like: gives shape, device and dtype; its values are not read.
            condition, noise, callback: see the samplers.
            sde: of schedule "released" and sampler "em".
        """
        run, sde, args = SAMPLERS[self.name], sde or VESDE(), (condition, noise, callback)
        calls = (self.steps + 1) // 2 if run is heun else self.steps
        path = levels(self.schedule, calls, sde).to(like)
        x = normal(like, noise) * path[0]
        if run is not em:
            return run(denoise, path, x, *args, **self.settings)
        times = released_times(calls).to(like) if self.schedule == "released" else sde.time(path[:-1])
        return em(denoise, times, x, *args, sde)
