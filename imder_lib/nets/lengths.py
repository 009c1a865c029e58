"""Sequence lengths. Steps at the end whose latents are exactly zero are padding; all others are valid."""

from collections.abc import Mapping

import torch
from torch import Tensor


def valid_steps(lengths: Tensor, T: int) -> Tensor:
    """Lengths (B,) as a float mask (B, 1, T): 1 at valid steps, 0 at padding."""
    return (torch.arange(T, device=lengths.device) < lengths[:, None])[:, None].float()


def lengths_of(latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Number of valid steps of latents (B, D, T): up to the last one that is not exactly zero.

    Returns:
        modality -> int64 (B,) in 1..T; for a modality that is all zero, the largest length of the others
    """
    steps = {m: x.ne(0).any(dim=1) * torch.arange(1, x.shape[-1] + 1, device=x.device) for m, x in latents.items()}
    lengths = {m: s.amax(dim=1) for m, s in steps.items()}
    longest = torch.stack(list(lengths.values())).amax(dim=0).clamp(min=1)
    return {m: torch.where(n > 0, n, longest) for m, n in lengths.items()}
