"""Denoisers: callables (x, sigma, condition) -> x0, the expected clean sample.

``x`` is (B, ...), ``sigma`` (B,); the condition is passed to the network unchanged. Two adapters build a denoiser, from
a score network or from a preconditioned network. Samplers and plots use only this interface.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from imder_lib.diffusion.noise import Noise, normal
from imder_lib.diffusion.sde import VESDE, per_sample
from imder_lib.errors import UserError

Denoiser = Callable[[Tensor, Tensor, Any], Tensor]
Score = Callable[[Tensor, Tensor, Any], Tensor]  # (x (B, ...), t (B,), condition) -> score


@dataclass(frozen=True)
class ScoreDenoiser:
    """Tweedie's formula: D(x, sigma) = x + sigma^2 score(x, t(sigma))."""

    score: Score
    sde: VESDE = field(default_factory=VESDE)

    def __call__(self, x: Tensor, sigma: Tensor, condition: Any) -> Tensor:
        return x + per_sample(sigma, x) ** 2 * self.score(x, self.sde.time(sigma), condition)


@dataclass(frozen=True)
class EDMDenoiser:
    """Preconditioning of Karras et al. (2022), table 1: D = c_skip x + c_out F(c_in x, c_noise, condition)."""

    net: Callable[[Tensor, Tensor, Any], Tensor]  # F: (x (B, ...), c_noise (B,), condition) -> (B, ...)
    sigma_data: float = 1.0  # standard deviation of clean data; 1 for standardised latents

    def __call__(self, x: Tensor, sigma: Tensor, condition: Any) -> Tensor:
        s, d = per_sample(sigma, x), self.sigma_data
        c_in, c_skip = (s**2 + d**2).rsqrt(), d**2 / (s**2 + d**2)
        return c_skip * x + s * d * c_in * self.net(c_in * x, sigma.log() / 4, condition)


def score_of(denoise: Denoiser, sde: VESDE, x: Tensor, t: Tensor, condition: Any) -> Tensor:
    """The score of x at times t (B,): the output of a score network, otherwise (D - x) / sigma^2."""
    if isinstance(denoise, ScoreDenoiser):
        return denoise.score(x, t, condition)  # avoids the rounding error of computing D first
    if isinstance(denoise, NoisyCondition):
        return score_of(denoise.denoise, sde, x, t, denoise.noisy(condition, sde.std(t)))
    sigma = sde.std(t)
    return (denoise(x, sigma, condition) - x) / per_sample(sigma, x) ** 2


class NoisyCondition:
    """A denoiser that adds noise at the level of x to its condition, a tensor.

    ``mode`` "fresh": new noise at every call, as in the release. "frozen": the same noise, scaled at every call.
    """

    def __init__(self, denoise: Denoiser, mode: str, noise: Noise = None) -> None:
        if mode not in ("fresh", "frozen"):
            raise UserError(f"condition noise must be 'fresh' or 'frozen', got {mode!r}")
        self.denoise, self.mode, self.noise = denoise, mode, noise
        self.draw: Tensor | None = None

    def noisy(self, condition: Tensor, sigma: Tensor) -> Tensor:
        """The condition (B, ...) with noise at level sigma (B,)."""
        draw = self.draw
        if draw is None or self.mode == "fresh":
            self.draw = draw = normal(condition, self.noise)
        return condition + per_sample(sigma, condition) * draw

    def __call__(self, x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        return self.denoise(x, sigma, self.noisy(condition, sigma))


def sample_condition(denoise: Denoiser, mode: str, noise: Noise = None) -> Denoiser:
    """The denoiser with condition noise "fresh" or "frozen", see :class:`NoisyCondition`; "clean": unchanged."""
    return denoise if mode == "clean" else NoisyCondition(denoise, mode, noise)
