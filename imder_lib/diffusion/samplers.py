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
from imder_lib.diffusion.sde import VESDE
from imder_lib.errors import UserError, unknown
from imder_lib.settings import Settings, check_value, whole_number

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
        g, score = sde.g(t), score_of(denoise, sde, x, t * ones, condition)
        if callback is not None:
            callback(i, sde.std(t), x, x + sde.std(t) ** 2 * score)
        mean = x + g**2 * score * h
        x = mean + h.sqrt() * g * normal(x, noise)
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
def adams(
    denoise: Denoiser,
    sigmas: Tensor,
    x: Tensor,
    condition: Any = None,
    noise: Noise = None,
    callback: Callback | None = None,
    eta: float = 1.0,
    above: float = 5.0,
    order: int = 3,
    correct: bool = True,
) -> Tensor:
    """Stochastic Adams method, one call a step (SA-Solver; Xue et al., 2023).

    A step integrates exactly a polynomial in log sigma through the last denoised samples. ``correct``: it is computed
    again with the denoised sample at its end, once this is known. Without, it is DPM-Solver++ (Lu et al., 2022).

    Args:
        eta: amount of new noise, from 0 (the ODE) to 1 (the full SDE), in steps that end at ``above`` or higher.
        above: noise level. Up there noise hides nearly all of standardised data, and new noise lets a sample forget
            its start, which knows no condition. Further down, new noise would cost accuracy.
        order: number of denoised samples.
    """
    if not (0 <= eta <= 1 and above >= 0):
        raise UserError(f"eta must lie in [0, 1] and above be at least 0, got {eta} and {above}")
    ones, past, step = x.new_ones(len(x)), [], None
    for i, (s, s_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, s * ones, condition)
        if callback is not None:
            callback(i, s, x, denoised)
        if s_next == 0:
            return denoised
        past = [(-s.log(), denoised), *past[: order - 1]]  # (log(1 / sigma), denoised), latest first
        x = _integral(*step, past) if step and correct else x
        h, k = (s / s_next).log(), 1 + (eta if s_next >= above else 0.0)
        x = (-h * k).exp() * x
        if k > 1:
            x = x + s_next * (1 - (-2 * (k - 1) * h).exp()).sqrt() * normal(x, noise)
        step = x, -s.log(), h, k
        x = _integral(*step, past)
    return x


def _integral(x: Tensor, start: Tensor, h: Tensor, k: float, past: list[tuple[Tensor, Tensor]]) -> Tensor:
    """x + the integral of k exp(k (u - h)) P(start + u) over u in [0, h]; P: polynomial through ``past``."""
    h, u = h.double(), torch.stack([level - start for level, _ in past]).double()
    moments = [1 - (-h * k).exp()]  # of the powers of u
    for q in range(1, len(past)):
        moments.append(h**q - q / k * moments[-1])
    if len(past) == 2:
        moments[1] = moments[0] * h / 2  # a line: the midpoint rule of DPM-Solver++, measured to be more accurate
    weights = torch.linalg.solve(torch.stack([u**q for q in range(len(past))]), torch.stack(moments))
    return x + sum(w * denoised for w, (_, denoised) in zip(weights.tolist(), past, strict=True))


# To add a sampler: SAMPLERS["name"] = function. Its settings are keywords after the six common arguments.
SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "em": em,
    "heun": heun,
    "dpmpp_2m": partial(adams, order=2, correct=False, eta=0.0, above=0.0),
    "dpmpp_2m_sde": partial(adams, order=2, correct=False, above=0.0),
    "adams": partial(adams, order=3, correct=True),
}


@dataclass(frozen=True)
class Sampler(Settings):
    """Sampler, schedule and settings of one draw. An unknown name or setting is a UserError, as is a bad value."""

    name: str = "adams"  # one of SAMPLERS
    steps: int = 15  # network calls >= 1; "heun" uses an odd number, so it rounds an even one down
    schedule: str = "geometric"  # one of SCHEDULES
    settings: Mapping[str, float] = field(default_factory=dict)  # keywords of the sampler, such as {"eta": 0.5}
    # Classifier-free guidance weight w (Ho & Salimans, 2022, whose w is one less): D0 + w (D - D0), where D0 is the
    # denoiser without condition. 0: no condition; 1: the trained denoiser; above 1: a stronger condition. Values other
    # than 1 need net "joint" and two network calls per step.
    guidance: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name not in SAMPLERS:
            raise unknown("unknown sampler", self.name, SAMPLERS)
        if self.schedule not in SCHEDULES:
            raise unknown("unknown schedule", self.schedule, SCHEDULES)
        whole_number("steps", self.steps)
        if not self.guidance >= 0:
            raise UserError(f"guidance must be at least 0, got {self.guidance}")
        fixed = {*CONTRACT, *getattr(SAMPLERS[self.name], "keywords", {})}  # by the contract or by partial
        own = [k for k in inspect.signature(SAMPLERS[self.name]).parameters if k not in fixed]
        for k, v in self.settings.items():
            if k not in own:
                raise UserError(f"sampler {self.name!r} has no setting {k!r}: its settings are {own}")
            check_value(f"setting {k!r} of sampler {self.name!r}", v, float)

    def check_levels(self, sde: VESDE) -> None:
        """Raise a UserError if the schedule starts at a noise level that no score net of this SDE has seen."""
        start, known = SCHEDULES[self.schedule](self.steps, sde)[0], sde.std(torch.ones(()))
        if start > 1.001 * known:
            what = f"schedule {self.schedule!r} starts at noise level {start:.3g}, the score net knows {known:.3g}"
            raise UserError(f"{what} at most: use schedule 'released'")

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
            sde: used by schedule "released" and sampler "em".
        """
        run, sde, args = SAMPLERS[self.name], sde or VESDE(), (condition, noise, callback)
        calls = (self.steps + 1) // 2 if run is heun else self.steps
        # On the host: a GPU need not be waited for at each step.
        path = SCHEDULES[self.schedule](calls, sde).to(like.dtype)
        x = normal(like, noise) * path[0]
        if run is not em:
            return run(denoise, path, x, *args, **self.settings)
        times = released_times(calls).to(like.dtype) if self.schedule == "released" else sde.time(path[:-1])
        return em(denoise, times, x, *args, sde)
