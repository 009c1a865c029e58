"""Decoding: from latents to features. The encoders are linear, so least squares inverts them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from imder_lib.model.imder import IMDer


class Decoder:
    """Least-squares inverse of the encoders: the features whose latents are nearest to the given ones.

    If several features have the same latents, it returns those of least norm, with each feature in units of its encoder
    weight. The inverse is exact if the encoder loses no information and the latents lie in its range.

    Args:
        model: the model whose encoders are inverted.
        steps: T of the features.
    """

    @torch.no_grad()
    def __init__(self, model: IMDer, steps: int) -> None:
        self.steps, self.inverse = steps, {}
        device = next(model.parameters()).device
        for m in model.encoders:
            width = model.config.widths[m]
            units = torch.eye(steps * width, device=device).unflatten(1, (steps, width))  # unit vectors
            image = model.encode({k: units if k == m else units.new_zeros(len(units), steps, w)
                                  for k, w in model.config.widths.items()})[m].flatten(1)  # fmt: skip
            size = image.double().norm(dim=1).clamp(min=1e-30)  # scales of features may differ widely
            self.inverse[m] = (torch.linalg.pinv(image / size[:, None], rtol=1e-4) / size).float()  # (D T', T D_m)

    def __call__(self, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Decode latents, modality -> (..., D, T'), to features, modality -> (..., T, D_m)."""
        out = {}
        for m, x in latents.items():
            if m in self.inverse:
                out[m] = (x.flatten(-2) @ self.inverse[m].to(x)).unflatten(-1, (self.steps, -1))
            else:  # a modality of width D has no encoder
                out[m] = x.transpose(-1, -2)
        return out
