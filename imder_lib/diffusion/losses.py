"""Denoising score matching (Vincent, 2011; IMDer eq. 4), with the release's noise on the condition."""

from collections.abc import Callable

import torch
from torch import Tensor

from imder_lib.diffusion.noise import normal, uniform
from imder_lib.diffusion.sde import VESDE, per_sample

Score = Callable[[Tensor, Tensor, Tensor | None], Tensor]
T_MIN = 1e-5  # times below are never drawn: std(0) = 0 divides


def dsm_loss(
    score: Score,
    sde: VESDE,
    x0: Tensor,
    condition: Tensor | None,
    generator: torch.Generator | None = None,
    valid: Tensor | None = None,
) -> Tensor:
    """Mean over B of the sum over D, T of (score * std + z)^2 at x0 + z std.

    The condition is noised with the SAME z that the network must predict: this is the release's rule, kept to the
    digit here. Draws: t, then z.

    Args:
        score: callable (x (B, D, T), t (B,), condition) -> (B, D, T).
        sde: gives std(t).
        x0: (B, D, T) clean latents.
        condition: (B, D, T) clean, or None.
        generator: of the draws.
        valid: (B, 1, T), 1 where a step counts and 0 where it is padding; None: every step counts.

    Returns:
        scalar
    """
    t = uniform(x0, generator) * (1.0 - T_MIN) + T_MIN  # (B,)
    z = normal(x0, generator)
    std = per_sample(sde.std(t), x0)
    noisy_condition = None if condition is None else condition + z * std
    residual = score(x0 + z * std, t, noisy_condition) * std + z
    residual = residual if valid is None else residual * valid
    return residual.square().sum(dim=(1, 2)).mean()
