"""Training losses: denoising score matching as the release has it, and EDM's weighted squared error."""

from typing import Any

import torch
from torch import Tensor

from imder_lib.diffusion.denoiser import Denoiser, Score
from imder_lib.diffusion.noise import normal, uniform
from imder_lib.diffusion.sde import VESDE, per_sample
from imder_lib.errors import UserError

T_MIN = 1e-5  # times below are never drawn: std(0) = 0 divides
# Of EDM's log-normal noise levels, for sigma_data = 1. Wider than for images on both sides: a sequence's slow modes are
# many times its frame's size, and thin structure shows at levels far below it.
P_MEAN, P_STD = -0.5, 1.7


def train_condition(condition: Any, std: Tensor, z: Tensor, mode: str, generator: torch.Generator | None = None) -> Any:
    """The condition as training shows it.

    Args:
        condition: (B, D, T) clean; anything if ``mode`` is "clean".
        std: noise level, to broadcast.
        z: the noise on the target.
        mode: "shared": the condition gets the SAME z that the network must predict (the release's rule);
            "independent": a draw of its own; "clean": none.
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

    Draws: t, then z, then the condition's own noise if ``mode`` is "independent".

    Args:
        score: callable (x (B, D, T), t (B,), condition) -> (B, D, T).
        sde: gives std(t).
        x0: (B, D, T) clean latents.
        condition: (B, D, T) clean, or None.
        generator: of the draws.
        valid: (B, 1, T), 1 where a step counts and 0 where it is padding; None: every step counts.
        mode: of the condition's noise, see :func:`train_condition`.

    Returns:
        scalar
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

    Draws: noise level, z, then the condition's own noise if ``mode`` is "independent".

    Args:
        denoise: (x (B, ...), sigma (B,), condition) -> x0.
        x0: (B, ...) clean.
        condition, mode: see :func:`train_condition`.
        generator: of the draws.
        sigma_data: of the denoiser.

    Returns:
        (B, ...), about 1 for an untrained net on standardised data
    """
    level = normal(x0.flatten(1)[:, 0], generator)
    sigma = (P_MEAN + P_STD * level).exp()  # (B,)
    z, s = normal(x0, generator), per_sample(sigma, x0)
    error = denoise(x0 + s * z, sigma, train_condition(condition, s, z, mode, generator)) - x0
    return error.square() * (s**2 + sigma_data**2) / (s * sigma_data) ** 2
