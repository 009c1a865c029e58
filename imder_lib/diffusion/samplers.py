"""Samplers of the reverse SDE. One contract: a score callable, a shape-giving condition, a noise source."""

from collections.abc import Callable

import torch
from torch import Tensor

from imder_lib.diffusion.losses import Score
from imder_lib.diffusion.noise import Noise, normal
from imder_lib.diffusion.sde import VESDE
from imder_lib.errors import UserError

T_END = 1e-3  # the release stops here: std = 0.0317
Callback = Callable[[int, Tensor, Tensor, Tensor], None]  # (step, t, x, mean)


@torch.no_grad()
def em(
    score: Score, sde: VESDE, condition: Tensor, steps: int = 100, noise: Noise = None, callback: Callback | None = None
) -> Tensor:
    """Euler-Maruyama on the reverse SDE, as the release does it (IMDer eq. 5).

    The condition gets a fresh noise of size std(t) at every step; it stays clean itself. Draws: the start,
    then for each step the condition noise and the step noise (the last step draws its own too and discards it).

    Args:
        score: callable (x (B, D, T), t (B,), condition (B, D, T)) -> (B, D, T).
        condition: (B, D, T); the sample has its shape.
        steps: network calls N >= 1; times are N points from 1 down to 1e-3.
        callback: called after each step with (step, t, x, mean).

    Returns:
        (B, D, T), the last mean.
    """
    if steps < 2:
        raise UserError(f"steps must be at least 2 (Euler-Maruyama needs a step size), got {steps}")
    ones = condition.new_ones(len(condition))
    x = normal(condition, noise) * sde.std(ones[:1])
    times = torch.linspace(1.0, T_END, steps, device=condition.device, dtype=condition.dtype)
    h = times[0] - times[1]
    mean = x
    for i, t in enumerate(times):
        noisy_condition = condition + sde.std(t) * normal(condition, noise)
        g = sde.g(t)
        mean = x + g**2 * score(x, t * ones, noisy_condition) * h
        x = mean + h.sqrt() * g * normal(x, noise)
        if callback is not None:
            callback(i, t, x, mean)
    return mean
