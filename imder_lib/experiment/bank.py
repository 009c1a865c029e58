"""A bank of recovered latents: sampled once, so that refiners and fusion train without the sampler in the loop."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imder_lib.data.missing import available_columns, patterns
from imder_lib.diffusion.noise import SampleNoise, derive_seed
from imder_lib.model.imder import IMDer
from imder_lib.model.recovery import Latents


@dataclass
class Bank:
    """Recovered latents of a split under incomplete patterns.

    Attributes:
        available: bool (N, K, M), the pattern of each draw.
        recovered: modality -> (N, K, D, T); zeros where the modality is available.
    """

    available: Tensor
    recovered: Latents

    @property
    def draws(self) -> int:
        return self.available.shape[1]


def choose_patterns(ids: Sequence[str], modalities: Sequence[str], draws: int, seed: int) -> Tensor:
    """Incomplete patterns for each sample, bool (N, K, M): ``draws`` different ones by (seed, id), all of them if 0."""
    table = available_columns(patterns(modalities, complete=False), modalities)  # (P, M)
    if not draws or draws >= len(table):
        return table.expand(len(ids), *table.shape)
    picks = []
    for i in ids:
        generator = torch.Generator().manual_seed(derive_seed(seed, i, "bank"))
        picks.append(torch.randperm(len(table), generator=generator)[:draws])
    return table[torch.stack(picks)]


@torch.no_grad()
def fill_bank(
    model: IMDer, latents: Latents, ids: Sequence[str], draws: int, steps: int, seed: int, batch_size: int = 256
) -> Bank:
    """Recover every sample under its patterns.

    Args:
        latents: modality -> (N, D, T), true.
        draws: patterns for each sample; 0: every incomplete one.
        steps: network calls of the sampler.
        seed: of patterns and noise.
    """
    available = choose_patterns(ids, model.modalities, draws, seed)
    device = next(iter(latents.values())).device
    recovered = {m: x.new_zeros(len(x), available.shape[1], *x.shape[1:]) for m, x in latents.items()}
    for k in range(available.shape[1]):
        for start in range(0, len(ids), batch_size):
            end = min(start + batch_size, len(ids))
            here = available[start:end, k].to(device)
            noise = SampleNoise(seed, ids[start:end], f"bank{k}")
            drawn, _ = model.recover_missing(
                {m: x[start:end] for m, x in latents.items()}, here, noise, steps, refine=False
            )
            for i, m in enumerate(model.modalities):
                recovered[m][start:end, k] = drawn[m] * ~here[:, i, None, None]
    return Bank(available.to(device), recovered)
