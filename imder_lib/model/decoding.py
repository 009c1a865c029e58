"""Latents back to features: encoders are linear, so least squares inverts them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from imder_lib.model.imder import IMDer


class Decoder:
    """The features whose latents are nearest to given ones, by least squares; of least norm, each feature in
    units of its weight, if there are many.

    Exact where a modality's latents hold as many independent numbers as its features; drawn latents that no features
    have are projected to those that some have.

    Args:
        model: whose encoders made the latents.
        steps: T of the features.
    """

    @torch.no_grad()
    def __init__(self, model: IMDer, steps: int) -> None:
        self.steps, self.inverse = steps, {}
        device = next(model.parameters()).device
        for m in model.encoders:
            width = model.config.widths[m]
            units = torch.eye(steps * width, device=device).unflatten(1, (steps, width))  # one feature each
            image = model.encode({k: units if k == m else units.new_zeros(len(units), steps, w)
                                  for k, w in model.config.widths.items()})[m].flatten(1)  # fmt: skip
            size = image.double().norm(dim=1).clamp(min=1e-30)  # features may differ in scale by orders of magnitude
            self.inverse[m] = (torch.linalg.pinv(image / size[:, None], rtol=1e-4) / size).float()  # (D T', T D_m)

    def __call__(self, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Latents, modality -> (..., D, T'), to features, modality -> (..., T, D_m)."""
        out = {}
        for m, x in latents.items():
            if m in self.inverse:
                out[m] = (x.flatten(-2) @ self.inverse[m].to(x)).unflatten(-1, (self.steps, -1))
            else:  # as wide as the latents: no encoder
                out[m] = x.transpose(-1, -2)
        return out
