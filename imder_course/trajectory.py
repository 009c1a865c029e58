"""One draw of the kit's recoverer, step by step, for pictures."""

import torch
from torch import Tensor

from imder_lib.diffusion.noise import Noise
from imder_lib.diffusion.samplers import Sampler
from imder_lib.errors import UserError
from imder_lib.model.joint import JointDiffusion
from imder_lib.model.recovery import Latents


@torch.no_grad()
def trajectory(
    recoverer: JointDiffusion,
    latents: Latents,
    available: Tensor,
    noise: Noise = None,
    sampler: Sampler | None = None,
) -> list[tuple[float, Latents, Latents]]:
    """One draw, step by step.

    Args:
        latents, available, noise, sampler: see :meth:`Recoverer.forward`; every sample misses at least one modality.

    Returns:
        (sigma, noisy latents, denoised latents) of each network call, sigma falling; last (0, drawn, drawn)
    """
    if available.all(dim=1).any():
        raise UserError("expected samples that miss at least one modality, got a complete one: it has no trajectory")
    path = []

    def keep(step: int, sigma: Tensor, x: Tensor, denoised: Tensor) -> None:
        seen = (recoverer.fill(latents, available, recoverer.standardizer.inverse(v)) for v in (x, denoised))
        path.append((sigma.item(), *seen))

    drawn = recoverer(latents, available, noise, sampler, keep)
    return [*path, (0.0, drawn, drawn)]
