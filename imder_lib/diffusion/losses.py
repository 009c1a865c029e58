"""Training losses: the release's denoising score matching, and the weighted squared error of EDM."""

from typing import Any

import torch
from torch import Tensor

from imder_lib.diffusion.denoiser import Denoiser, Score
from imder_lib.diffusion.noise import normal, uniform
from imder_lib.diffusion.sde import VESDE, per_sample
from imder_lib.errors import UserError

T_MIN = 1e-5  # smallest diffusion time drawn: std(0) = 0 would be a divisor
# Mean and standard deviation of EDM's log noise level, for sigma_data = 1. Wider than for images: slow modes of a
# sequence need levels far above the scale of a frame, fine structure needs levels far below it.
P_MEAN, P_STD = -0.5, 1.7


def train_condition(condition: Any, std: Tensor, z: Tensor, mode: str, generator: torch.Generator | None = None) -> Any:
    """A clean condition (B, D, T) with its training noise at level ``std``, which broadcasts.

    ``mode`` "shared": the condition gets the target's noise z (the release's rule). "independent": its own. "clean":
    none, for a condition of any type.
    """
    if mode not in ("shared", "independent", "clean"):
        raise UserError(f"train_condition must be 'shared', 'independent' or 'clean', got {mode!r}")
    if mode == "clean" or condition is None:
        return condition
    return condition + std * (z if mode == "shared" else normal(condition, generator))


def dsm_loss(
    score: Score,
    sde: VESDE,
    x0: Tensor,
    condition: Tensor | None,
    generator: torch.Generator | None = None,
    valid: Tensor | None = None,
    mode: str = "shared",
) -> Tensor:
    """Mean over B of the sum over D, T of (score * std + z)^2 at x0 + z std (Vincent, 2011; IMDer eq. 4).

    Random numbers are drawn in this order: t, z, independent condition noise.

    Args:
        x0: (B, D, T) clean latents.
        condition, mode: clean (B, D, T) or None, see :func:`train_condition`.
        valid: (B, 1, T), 1 at valid steps and 0 at padding; None: all steps are valid.
    """
    t = uniform(x0, generator) * (1.0 - T_MIN) + T_MIN  # (B,)
    z = normal(x0, generator)
    std = per_sample(sde.std(t), x0)
    residual = score(x0 + z * std, t, train_condition(condition, std, z, mode, generator)) * std + z
    residual = residual if valid is None else residual * valid
    return residual.square().sum(dim=(1, 2)).mean()


def edm_error(
    denoise: Denoiser,
    x0: Tensor,
    condition: Any,
    generator: torch.Generator | None = None,
    mode: str = "clean",
    sigma_data: float = 1.0,
) -> Tensor:
    """EDM's loss before the mean (Karras et al., 2022, eq. 8): squared error / c_out^2 at log-normal noise levels.

    Random numbers are drawn in this order: noise level, z, independent condition noise.

    Args:
        x0: (B, ...) clean.
        condition, mode: see :func:`train_condition`.

    Returns:
        (B, ...), about 1 for an untrained network on standardised data
    """
    level = normal(x0.flatten(1)[:, 0], generator)
    sigma = (P_MEAN + P_STD * level).exp()  # (B,)
    z, s = normal(x0, generator), per_sample(sigma, x0)
    error = denoise(x0 + s * z, sigma, train_condition(condition, s, z, mode, generator)) - x0
    return error.square() * (s**2 + sigma_data**2) / (s * sigma_data) ** 2
