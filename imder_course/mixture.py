"""A mixture of Gaussians: the simplest multimodal distribution, with an exact score at every noise level."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from imder_lib.diffusion.sde import per_sample
from imder_lib.errors import UserError


@dataclass(frozen=True)
class Mixture:
    """J isotropic Gaussians in d dimensions.

    Attributes:
        weights: (J,), positive, summing to 1.
        means: (J, d).
        std: (J,), standard deviations > 0.
    """

    weights: Tensor
    means: Tensor
    std: Tensor

    def __post_init__(self) -> None:
        J = len(self.weights)
        if self.means.ndim != 2 or len(self.means) != J or self.std.shape != (J,):
            got = f"{tuple(self.weights.shape)}, {tuple(self.means.shape)} and {tuple(self.std.shape)}"
            raise UserError(f"expected weights (J,), means (J, d) and std (J,), got {got}")
        if not (self.weights > 0).all() or abs(float(self.weights.sum()) - 1) > 1e-5 or not (self.std > 0).all():
            raise UserError("weights must be positive and sum to 1, std must be positive")

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent samples, (n, d)."""
        j = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        z = torch.randn(n, self.means.shape[1], generator=generator, dtype=self.means.dtype)
        return self.means[j] + self.std[j, None] * z

    def given(self, c: float) -> "Mixture":
        """Conditional distribution of the first d - 1 coordinates, given that the last one is c."""
        log = self.weights.log() - ((c - self.means[:, -1]) / self.std) ** 2 / 2 - self.std.log()
        return Mixture(log.softmax(0), self.means[:, :-1], self.std)

    def log_parts(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Log of weight times density of each component at x (N, d) and noise level sigma (N,): (N, J)."""
        variance = self.std**2 + sigma[:, None] ** 2  # (N, J)
        square = (x[:, None] - self.means).square().sum(-1)
        d = x.shape[1]
        return self.weights.log() - square / (2 * variance) - d / 2 * (2 * math.pi * variance).log()

    def density(self, x: Tensor, sigma: Tensor) -> Tensor:
        """p_sigma(x): density (N,) of x0 + sigma z at x (N, d), for sigma (N,)."""
        return self.log_parts(x, sigma).logsumexp(1).exp()

    def score(self, x: Tensor, sigma: Tensor, condition: None = None) -> Tensor:
        """grad log p_sigma(x) (N, d): the scores of the components, weighted by their responsibility for x."""
        pull = (self.means - x[:, None]) / (self.std**2 + sigma[:, None] ** 2)[..., None]  # (N, J, d)
        return (self.log_parts(x, sigma).softmax(1)[..., None] * pull).sum(1)

    def denoise(self, x: Tensor, sigma: Tensor, condition: None = None) -> Tensor:
        """E[x0 | x] (N, d) by Tweedie's formula, x + sigma^2 score: what a perfectly trained network returns."""
        return x + per_sample(sigma, x) ** 2 * self.score(x, sigma)
