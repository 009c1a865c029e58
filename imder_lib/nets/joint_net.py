"""One net over all modalities: missing ones are noisy input channels, available ones clean ones."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def time_conv(conv: nn.Conv1d, h: Tensor) -> Tensor:
    """``conv``, of three taps and with padding as wide as its dilation, of h (B, T, C): (B, T, C)."""
    d, (before, here, after) = conv.dilation[0], conv.weight.unbind(2)
    out = F.linear(h, here, conv.bias)
    if d < h.shape[1]:  # the padding is skipped: for short T faster than Conv1d on a CPU
        out[:, d:] += F.linear(h[:, :-d], before)
        out[:, :-d] += F.linear(h[:, d:], after)
    return out


def time_norm(norm: nn.GroupNorm, h: Tensor) -> Tensor:
    """``norm``, of one group, of h (B, T, C): (B, T, C)."""
    return torch.addcmul(norm.bias, F.layer_norm(h, h.shape[1:], eps=norm.eps), norm.weight)


class Block(nn.Module):
    """Residual block: norm, scale and shift, dilated convolution, SiLU, linear map of each step.

    Scale and shift come from the embedding and from the input's time average, which shows what noise hides at a step.
    """

    def __init__(self, channels: int, embed: int, dilation: int) -> None:
        super().__init__()
        self.norm, self.modulate = nn.GroupNorm(1, channels), nn.Linear(embed, 2 * channels)
        self.conv = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.out = nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)  # the block starts as the identity
        nn.init.zeros_(self.out.bias)
        self.average = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, embed),
                                     nn.SiLU(), nn.Linear(embed, embed))  # fmt: skip

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulate(embedding + self.average(h.mean(dim=1)))[:, None].chunk(2, dim=2)
        y = torch.addcmul(shift, time_norm(self.norm, h), 1 + scale)
        return h + self.out(F.silu(time_conv(self.conv, y)))


class JointNet(nn.Module):
    """Dilated residual convolutions over M = ``modalities`` of D = ``dim`` channels; any T >= 1.

    ``channels`` is the hidden width; the dilations of the ``blocks`` are 1, 2, 4, 8 in turn.
    """

    def __init__(self, modalities: int, dim: int, channels: int = 128, blocks: int = 8) -> None:
        super().__init__()
        M, D = modalities, dim
        self.inp = nn.Linear(2 * M * D + M, channels)
        self.W = nn.Parameter(torch.randn(channels // 2), requires_grad=False)  # Fourier frequencies of the noise level
        self.embed = nn.Sequential(nn.Linear(2 * (channels // 2) + M, channels), nn.SiLU(),
                                   nn.Linear(channels, channels), nn.SiLU())  # fmt: skip
        self.blocks = nn.ModuleList(Block(channels, channels, 2 ** (i % 4)) for i in range(blocks))
        self.norm, self.out = nn.GroupNorm(1, channels), nn.Linear(channels, M * D)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, level: Tensor, known: Tensor, available: Tensor) -> Tensor:
        """Raw output F (B, M, D, T) for scaled noisy latents x where missing, and ``level`` (B,), log sigma / 4.

        ``known``, as large as x: clean latents where ``available`` (B, M), zero where missing.
        """
        return self.estimate(x * ~available[:, :, None, None], level, self.condition(known, available), available)

    def condition(self, known: Tensor, available: Tensor) -> Tensor:
        """What the first layer makes of the condition, (B, T, channels): the same in all calls of a draw."""
        flags = available.to(known)[..., None].expand(*available.shape, known.shape[3])
        given = torch.cat([known.flatten(1, 2), flags], dim=1).transpose(1, 2)
        return F.linear(given, self.inp.weight[:, -given.shape[2] :], self.inp.bias)

    def estimate(self, x: Tensor, level: Tensor, condition: Tensor, available: Tensor) -> Tensor:
        """As :meth:`forward`, for x that is zero where available, and a condition from :meth:`condition`."""
        angle = 2 * math.pi * level[:, None] * self.W
        embedding = self.embed(torch.cat([angle.sin(), angle.cos(), available.to(x)], dim=1))
        h = condition + F.linear(x.flatten(1, 2).transpose(1, 2), self.inp.weight[:, : x.shape[1] * x.shape[2]])
        for block in self.blocks:
            h = block(h, embedding)
        return self.out(F.silu(time_norm(self.norm, h))).transpose(1, 2).unflatten(1, x.shape[1:3])
