"""Cross-modal fusion of all latents and the prediction head (MulT, Tsai et al., 2019)."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imder_lib.config import FusionConfig
from imder_lib.nets.attention import Encoder
from imder_lib.nets.lengths import lengths_of

HIDDEN = 128  # width of the readout's hidden layers


class Readout(nn.Module):
    """A linear map plus a network of two hidden layers, (B, inputs) -> (B, outputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.network = nn.Sequential(
            nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.network(x)


class Fusion(nn.Module):
    """Cross-modal encoders for every pair of modalities, then a memory encoder for each target modality.

    The prediction is computed from the last time step of each target; a readout of time averages is added to it. With
    ``mask_padding`` padding (zero latents at the end, see :func:`lengths_of`) is not attended to, and the last step is
    the last valid one; otherwise it is the last of all, as in the release.
    """

    def __init__(self, modalities: Sequence[str], dim: int, config: FusionConfig, mask_padding: bool = False) -> None:
        super().__init__()
        self.modalities, self.mask_padding = tuple(modalities), mask_padding
        heads, layers, dropout = config.heads, config.layers, config.embed_dropout
        self.cross, self.memory = nn.ModuleDict(), nn.ModuleDict()
        for target in self.modalities:
            for source in self.others(target):
                attention = config.attention_dropout.get(source, 0.0)
                self.cross[f"{target}<{source}"] = Encoder(dim, heads, layers, attention, dropout)
            self.memory[target] = Encoder(dim * (len(modalities) - 1), heads, layers, 0.0, dropout)
        width = dim * (len(modalities) - 1) * len(modalities)
        self.proj1, self.proj2 = nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, config.outputs)
        self.readout = Readout(dim * len(modalities), config.outputs) if config.readout else None

    def others(self, target: str) -> list[str]:
        """The source modalities of a target, in canonical order."""
        return [m for m in self.modalities if m != target]

    def forward(self, latents: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Fuse latents (B, D, T) of every modality.

        Returns:
            prediction (B, outputs) and vectors: modality -> (B, (M-1) D), in canonical order.
        """
        x = {m: latents[m].transpose(1, 2) for m in self.modalities}  # (B, T, D)
        B, T = x[self.modalities[0]].shape[:2]
        lengths = lengths_of({m: latents[m] for m in self.modalities}) if self.mask_padding else {}
        if all(bool((n == T).all()) for n in lengths.values()):
            lengths = {}  # without padding, attention without a mask is faster and equal
        valid = {m: torch.arange(T, device=n.device) < n[:, None] for m, n in lengths.items()}  # (B, T)
        last, vectors = x[self.modalities[0]].new_full((B,), T - 1, dtype=torch.long), {}
        for target in self.modalities:
            attended = [
                self.cross[f"{target}<{source}"](x[target], x[source], valid.get(source))
                for source in self.others(target)
            ]
            steps = lengths[target] - 1 if lengths else last
            # (B, 1, (M-1) D); causal, so no mask is needed
            vectors[target] = self.memory[target](torch.cat(attended, dim=-1), steps=steps)[:, 0]
        h = torch.cat(list(vectors.values()), dim=-1)
        prediction = self.out(h + self.proj2(F.relu(self.proj1(h))))
        if self.readout is not None:
            prediction = prediction + self.readout(self.averages(latents))
        return prediction.to(x[self.modalities[0]].dtype), vectors

    def averages(self, latents: Mapping[str, Tensor]) -> Tensor:
        """Time averages of latents (B, D, T) over non-zero steps, concatenated over modalities: (B, M D)."""
        counts = {m: x.ne(0).any(dim=1).sum(1, keepdim=True).clamp(min=1) for m, x in latents.items()}
        return torch.cat([latents[m].sum(2) / counts[m] for m in self.modalities], dim=1)
