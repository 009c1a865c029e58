"""Sequence lengths: which steps count. Padding is marked by latents that are exactly zero at the end."""

from collections.abc import Mapping

import torch
from torch import Tensor


def valid_steps(lengths: Tensor, T: int) -> Tensor:
    """(B,) to float (B, 1, T): 1 for the first ``lengths`` steps, 0 for the rest."""
    return (torch.arange(T, device=lengths.device) < lengths[:, None])[:, None].float()


def lengths_of(latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """How many steps of latents (B, D, T) count: up to the last one that is not exactly zero.

    Returns:
        modality -> int64 (B,) in 1..T; where a modality is zero throughout, the longest of the others.
    """
    steps = {m: x.ne(0).any(dim=1) * torch.arange(1, x.shape[-1] + 1, device=x.device) for m, x in latents.items()}
    lengths = {m: s.amax(dim=1) for m, s in steps.items()}
    longest = torch.stack(list(lengths.values())).amax(dim=0).clamp(min=1)
    return {m: torch.where(n > 0, n, longest) for m, n in lengths.items()}
