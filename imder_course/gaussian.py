"""The Gaussian pair: the smallest example in which the noise rules differ. x is missing, c is available.

The optimal denoiser of each training rule is linear and has a closed form. So has the distribution of the samples that
the release's sampler draws with it.
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
    """Standard normal x and c with correlation rho, so x | c ~ N(rho c, 1 - rho^2).

    Attributes:
        rho: correlation, in (-1, 1).
    """

    rho: float

    def weights(self, sigma: Tensor, rule: str) -> tuple[Tensor, Tensor]:
        """Weights (a, b) of the optimal denoiser E[x | x_t, c_t] = a x_t + b c_t.

        Args:
            sigma: noise level, any shape.
            rule: condition noise in training. "clean": c_t = c. "independent": c_t = c + sigma z'. "shared", as in the
                release: c_t = c + sigma z, where x_t = x + sigma z has the same z.
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
        """The optimal denoiser under a training rule, for x and condition of shape (B, ...)."""

        def denoise(x: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
            a, b = self.weights(sigma.reshape(-1, *[1] * (x.ndim - 1)), rule)
            return a * x + b * condition

        return denoise

    def sampled(self, rule: str, at: str, steps: int = 100, sde: VESDE | None = None) -> tuple[float, float]:
        """(slope, variance) of the samples x | c ~ N(slope c, variance) that Euler-Maruyama draws with that denoiser.

        Args:
            rule: condition noise in training, see :meth:`weights`.
            at: condition noise in sampling: "fresh", "frozen" or "clean".
            steps: network calls.
            sde: the forward SDE.
        """
        if at not in ("fresh", "frozen", "clean"):
            raise UserError(f"at must be 'fresh', 'frozen' or 'clean', got {at!r}")
        sde, times = sde or VESDE(), released_times(steps).double()
        h = times[0] - times[1]
        # x = slope c + frozen z + independent noise of this variance
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
