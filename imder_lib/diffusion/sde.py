"""The variance-exploding SDE dx = g(t) dw, g(t) = sigma^t, t in (0, 1] (Song et al., 2021; IMDer eq. 1)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class VESDE:
    """Variance-exploding SDE; times are tensors above 0, in the release up to 1."""

    sigma: float = 25.0  # base of the diffusion coefficient, > 1. The release uses 25: std(1) = 9.845.

    def std(self, t: Tensor) -> Tensor:
        """Standard deviation of x_t given x_0: sqrt((sigma^(2t) - 1) / (2 ln sigma))."""
        return torch.sqrt((self.sigma ** (2 * t) - 1.0) / (2 * math.log(self.sigma)))

    def g(self, t: Tensor) -> Tensor:
        """Diffusion coefficient sigma^t."""
        return self.sigma**t

    def time(self, std: Tensor) -> Tensor:
        """The inverse of :meth:`std`: t = ln(2 ln(sigma) std^2 + 1) / (2 ln sigma)."""
        return torch.log1p(2 * math.log(self.sigma) * std**2) / (2 * math.log(self.sigma))


def per_sample(v: Tensor, like: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, ..., 1), which broadcasts over ``like`` (B, ...)."""
    return v.reshape(-1, *[1] * (like.ndim - 1))
