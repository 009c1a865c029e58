"""Cache of recovered latents, so the adapt stage does not call the sampler."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from imder_lib.data.missing import available_columns, patterns, restrict
from imder_lib.diffusion.noise import SampleNoise, derive_seed
from imder_lib.experiment.parallel import over_batches
from imder_lib.model.imder import IMDer
from imder_lib.model.recovery import Latents, most_rows

DRAWS = 2  # per sample and pattern: fusion is trained on the mean prediction over draws, as it is used


@dataclass
class RecoveredCache:
    """Recovered latents of a split, for some incomplete patterns of each sample."""

    available: Tensor  # bool (N, P, M), the P patterns of each sample
    recovered: Latents  # modality -> (K, N, P, D, T), K draws; zero where the modality is available

    @property
    def count(self) -> int:
        """P, also the number of the complete pattern, which has no recovered latents."""
        return self.available.shape[1]

    def mask(self, rows: Tensor, pattern: Tensor) -> Tensor:
        """bool (B, M): what is available in ``rows`` (B,) under ``pattern`` (B,)."""
        return self.available[rows, pattern.clamp(max=self.count - 1)] | (pattern == self.count)[:, None]


def choose_patterns(
    ids: Sequence[str], modalities: Sequence[str], count: int, seed: int, observed: Tensor | None = None
) -> Tensor:
    """Choose ``count`` different incomplete patterns per sample by (seed, id); 0: all. Returns bool (N, P, M).

    ``observed``: bool (N, M); patterns are restricted to observed modalities, and an empty one becomes all of them.
    """
    table = available_columns(patterns(modalities, complete=False), modalities)  # (P, M)
    chosen = table.repeat(len(ids), 1, 1)
    if count:
        generators = (torch.Generator().manual_seed(derive_seed(seed, i, "cache")) for i in ids)
        chosen = table[torch.stack([torch.randperm(len(table), generator=g)[:count] for g in generators])]
    return chosen if observed is None else restrict(chosen, observed[:, None].cpu())


@torch.no_grad()
def fill_cache(
    model: IMDer,
    latents: Latents,
    ids: Sequence[str],
    patterns: int,
    seed: int,
    observed: Tensor | None = None,
) -> RecoveredCache:
    """Recover each sample under its patterns: DRAWS times if the recoverer is stochastic, otherwise once.

    Args:
        latents: modality -> (N, D, T), true.
        patterns: number of patterns per sample; 0: all incomplete ones.
        observed: bool (N, M), modalities that may be read; None: all.
    """
    available = choose_patterns(ids, model.modalities, patterns, seed, observed)
    device, P = next(iter(latents.values())).device, available.shape[1]
    draws = DRAWS if model.recoverer.stochastic else 1
    recovered = {m: x.new_zeros(draws, len(x), P, *x.shape[1:]) for m, x in latents.items()}

    def run(rows: slice, p: int) -> None:
        part, mask = {m: x[rows] for m, x in latents.items()}, available[rows, p].to(device)
        drawn = model.recover(part, mask, SampleNoise(seed, ids[rows], f"cache{p}"), draws)
        for i, m in enumerate(model.modalities):
            recovered[m][:, rows, p] = drawn[m] * ~mask[:, i, None, None]

    for p in range(P):
        over_batches(len(ids), most_rows(device), partial(run, p=p), device)
    return RecoveredCache(available.to(device), recovered)
