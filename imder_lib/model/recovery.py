"""Recoverers: what stands in for a missing modality's latents. One interface, so that rows compare."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from imder_lib.data.schema import Split
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.model.imder import IMDer

Latents = dict[str, Tensor]
# (latents modality -> (B, D, T), available bool (B, M), noise) -> latents with every missing modality replaced
Recoverer = Callable[[Mapping[str, Tensor], Tensor, SampleNoise | None], Latents]


def fill(latents: Mapping[str, Tensor], available: Tensor, values: Mapping[str, Tensor]) -> Latents:
    """Latents with ``values[m]`` (broadcast over B) where modality m is missing."""
    return {m: torch.where(available[:, i, None, None], latents[m], values[m]) for i, m in enumerate(latents)}


def zero_recoverer() -> Recoverer:
    """Zeros in place of what is missing."""

    def recover(latents: Mapping[str, Tensor], available: Tensor, noise: SampleNoise | None = None) -> Latents:
        return fill(latents, available, {m: torch.zeros_like(x[:1]) for m, x in latents.items()})

    return recover


def mean_recoverer(means: Mapping[str, Tensor]) -> Recoverer:
    """The training mean, modality -> (D, T), in place of what is missing."""

    def recover(latents: Mapping[str, Tensor], available: Tensor, noise: SampleNoise | None = None) -> Latents:
        return fill(latents, available, {m: x[None] for m, x in means.items()})

    return recover


def diffusion_recoverer(model: IMDer, steps: int | None = None) -> Recoverer:
    """IMDer's own: the sampler under the condition, then the refiner."""

    def recover(latents: Mapping[str, Tensor], available: Tensor, noise: SampleNoise | None = None) -> Latents:
        return model.recover_missing(latents, available, noise, steps)[1]

    return recover


@torch.no_grad()
def encode_split(model: IMDer, split: Split, batch_size: int = 256) -> Latents:
    """Latents of a whole split on the model's device: modality -> (N, D, T)."""
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(split), batch_size):
        rows = range(start, min(start + batch_size, len(split)))
        batch = split.batch(list(rows)).to(device)
        parts.append(model.encode(batch.features, batch.lengths))
    return {m: torch.cat([p[m] for p in parts]) for m in model.modalities}
