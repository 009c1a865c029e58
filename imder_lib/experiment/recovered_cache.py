"""A cache of recovered latents: sampled once, so that refiners and fusion train without the sampler in the loop."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imder_lib.data.missing import available_columns, patterns
from imder_lib.diffusion.noise import SampleNoise, derive_seed
from imder_lib.model.imder import IMDer
from imder_lib.model.recovery import Latents

DRAWS = 2  # of each pattern: a prediction is the mean over draws, and fusion is trained on what it will be used for


@dataclass
class RecoveredCache:
    """Recovered latents of a split under incomplete patterns.

    Attributes:
        available: bool (N, P, M), the patterns of each sample.
        recovered: modality -> (K, N, P, D, T), K draws of each; zeros where the modality is available.
    """

    available: Tensor
    recovered: Latents

    @property
    def patterns(self) -> int:
        return self.available.shape[1]

    @property
    def draws(self) -> int:
        return len(next(iter(self.recovered.values())))


def choose_patterns(
    ids: Sequence[str], modalities: Sequence[str], count: int, seed: int, observed: Tensor | None = None
) -> Tensor:
    """Incomplete patterns for each sample, bool (N, P, M): ``count`` different ones by (seed, id), all of them if 0.

    ``observed``: bool (N, M), patterns keep to what is observed; one that would be empty is all that is observed.
    """
    table = available_columns(patterns(modalities, complete=False), modalities)  # (P, M)
    picks = []
    for i in ids:
        generator = torch.Generator().manual_seed(derive_seed(seed, i, "cache"))
        order = torch.randperm(len(table), generator=generator)
        picks.append(order[:count] if count else torch.arange(len(table)))
    chosen = table[torch.stack(picks)]
    if observed is None:
        return chosen
    kept = chosen & observed[:, None].cpu()
    return torch.where(kept.any(dim=2, keepdim=True), kept, observed[:, None].cpu())


@torch.no_grad()
def fill_cache(
    model: IMDer,
    latents: Latents,
    ids: Sequence[str],
    patterns: int,
    seed: int,
    observed: Tensor | None = None,
    batch_size: int = 256,
) -> RecoveredCache:
    """Recover every sample under its patterns; DRAWS times where draws differ.

    Args:
        latents: modality -> (N, D, T), true.
        patterns: for each sample; 0: every incomplete one.
        seed: of patterns and noise.
        observed: bool (N, M), what may be read; None: everything.
    """
    available = choose_patterns(ids, model.modalities, patterns, seed, observed)
    device, P = next(iter(latents.values())).device, available.shape[1]
    draws = DRAWS if model.recoverer.stochastic else 1
    recovered = {m: x.new_zeros(draws, len(x), P, *x.shape[1:]) for m, x in latents.items()}
    for p in range(P):
        for start in range(0, len(ids), batch_size):
            end = min(start + batch_size, len(ids))
            mask = available[start:end, p].to(device)
            noise = SampleNoise(seed, ids[start:end], f"cache{p}")
            part = {m: x[start:end] for m, x in latents.items()}
            drawn = model.recover(part, mask, noise, draws)
            for i, m in enumerate(model.modalities):
                recovered[m][:, start:end, p] = drawn[m] * ~mask[:, i, None, None]
    return RecoveredCache(available.to(device), recovered)
