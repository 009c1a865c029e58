"""Decoding: from latents to features, and from features to digits. Encoders are linear: least squares inverts them."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from imder_lib.data.digits import ROWS
from imder_lib.errors import UserError
from imder_lib.model.imder import IMDer


class Decoder:
    """Least-squares inverse of the encoders: the features of ``steps`` = T whose latents are nearest to the given ones.

    If several features have the same latents, it returns those of least norm, with each feature in units of its encoder
    weight. The inverse is exact if the encoder loses no information and the latents lie in its range.
    """

    @torch.no_grad()
    def __init__(self, model: IMDer, steps: int) -> None:
        self.frames = model.kernel == 1  # latent steps are single frames, which are decoded one by one
        self.steps, self.inverse = 1 if self.frames else steps, {}
        widths, device = model.config.widths, next(model.parameters()).device
        for m in model.encoders:
            units = torch.eye(self.steps * widths[m], device=device).unflatten(1, (self.steps, widths[m]))
            zeros = {k: units.new_zeros(len(units), self.steps, w) for k, w in widths.items()}
            image = model.encode(zeros | {m: units})[m].flatten(1)
            size = image.double().norm(dim=1).clamp(min=1e-30)  # scales of features may differ widely
            self.inverse[m] = (torch.linalg.pinv(image / size[:, None], rtol=1e-4) / size).float()  # (D T', T D_m)

    def __call__(self, latents: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Decode latents, modality -> (..., D, T'), to features, modality -> (..., T, D_m)."""
        out = {m: x.transpose(-1, -2) for m, x in latents.items()}  # a modality of width D has no encoder
        for m in self.inverse.keys() & latents.keys():
            inverse = self.inverse[m].to(latents[m])
            if self.frames:
                out[m] = out[m] @ inverse
            else:
                out[m] = (latents[m].flatten(-2) @ inverse).unflatten(-1, (self.steps, -1))
        return out


def image(features: Mapping[str, np.ndarray]) -> np.ndarray:
    """Images (..., 8, 8) from modality -> (..., T, rows); absent modalities give NaN, unknown ones a UserError."""
    if not features or set(features) - set(ROWS):
        raise UserError(f"expected modalities out of {list(ROWS)}, got {list(features)}")
    first = np.asarray(next(iter(features.values())))
    out = np.full((*first.shape[:-2], 8, 8), np.nan, dtype=np.float32)
    for m, x in features.items():
        out[..., ROWS[m], :] = np.asarray(x).swapaxes(-1, -2)
    return out
