"""Latents back to features: encoders are linear, so least squares inverts them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from imder_lib.model.imder import IMDer


@torch.no_grad()
def decode(model: IMDer, latents: Mapping[str, Tensor], steps: int) -> dict[str, Tensor]:
    """The features whose latents are nearest to the given ones, by least squares; of least norm if there are many.

    Exact where a modality's latents hold as many independent numbers as its features; drawn latents that no features
    have are projected to those that some have.

    Args:
        model: whose encoders made the latents.
        latents: modality -> (..., D, T').
        steps: T of the features.

    Returns:
        modality -> (..., T, D_m)
    """
    out = {}
    for m, x in latents.items():
        if m not in model.encoders:
            out[m] = x.transpose(-1, -2)
            continue
        width = model.config.widths[m]
        units = torch.eye(steps * width, device=x.device).unflatten(1, (steps, width))  # one feature each
        image = model.encode({k: units if k == m else units.new_zeros(len(units), steps, w)
                              for k, w in model.config.widths.items()})[m].flatten(1)  # fmt: skip
        inverse = torch.linalg.pinv(image.double(), rtol=1e-4).to(x)  # (D T', T D_m)
        out[m] = (x.flatten(-2) @ inverse).unflatten(-1, (steps, width))
    return out
