"""The smallest case in which every noise rule can be seen: two Gaussian numbers, x missing and c available.

The best denoiser under each training rule is linear and known, and so is the distribution that the release's sampler
ends in. The rules differ here exactly as they do in a network.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from imder_lib.diffusion.denoiser import Denoiser
from imder_lib.diffusion.schedules import released_times
from imder_lib.diffusion.sde import VESDE
from imder_lib.errors import UserError


@dataclass(frozen=True)
class GaussianPair:
    """x and c, standard normal with correlation rho; the truth is x | c ~ N(rho c, 1 - rho^2).

    Attributes:
        rho: in (-1, 1).
    """

    rho: float

    def weights(self, sigma: Tensor, rule: str) -> tuple[Tensor, Tensor]:
        """(a, b) of the best denoiser E[x | x_t, c_t] = a x_t + b c_t at noise level sigma, any shape.

        Args:
            rule: of the condition in training. "clean": c_t = c. "independent": c_t = c + sigma z'. "shared":
                c_t = c + sigma z with the z of x_t = x + sigma z, the release's rule.
        """
        if rule not in ("shared", "independent", "clean"):
            raise UserError(f"rule must be 'shared', 'independent' or 'clean', got {rule!r}")
        s2 = sigma**2
        xx = 1 + s2
        cc = 1 + s2 * (rule != "clean")
        xc = self.rho + s2 * (rule == "shared")
        det = xx * cc - xc**2
        return (cc - self.rho * xc) / det, (self.rho * xx - xc) / det

    def denoiser(self, rule: str) -> Denoiser:
        """The best denoiser under a training rule, for x and condition of shape (B, ...)."""

        def denoise(x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
            a, b = self.weights(sigma.reshape(-1, *[1] * (x.ndim - 1)), rule)
            return a * x + b * condition

        return denoise

    def sampled(self, rule: str, at: str, steps: int = 100, sde: VESDE | None = None) -> tuple[float, float]:
        """Where Euler-Maruyama ends with that denoiser: (slope, variance) of x | c ~ N(slope c, variance).

        Args:
            rule: of the condition in training.
            at: of the condition in sampling, "fresh", "frozen" or "clean".
            steps: network calls.
        """
        if at not in ("fresh", "frozen", "clean"):
            raise UserError(f"at must be 'fresh', 'frozen' or 'clean', got {at!r}")
        sde, times = sde or VESDE(), released_times(steps).double()
        h = times[0] - times[1]
        # x = slope c + frozen z + noise of this variance
        slope, frozen, variance = torch.zeros(3, dtype=torch.float64)
        variance = sde.std(times[0]) ** 2
        for i, t in enumerate(times):
            s, g = sde.std(t), sde.g(t)
            a, b = self.weights(s, rule)
            step = g**2 * h / s**2  # times (denoised - x)
            keep, take = 1 + step * (a - 1), step * b
            slope = keep * slope + take
            frozen = keep * frozen + take * s * (at == "frozen")
            variance = keep**2 * variance + (take * s) ** 2 * (at == "fresh")
            variance = variance + h * g**2 * (i < len(times) - 1)
        return float(slope), float(variance + frozen**2)
