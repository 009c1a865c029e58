"""The score network: a 1-D U-Net with cross-attention to the condition at every level, as in the release."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imder_lib.nets.attention import Encoder


class TimeEmbedding(nn.Module):
    """Random Fourier features of the diffusion time, then Linear and SiLU. The frequencies W are not trained."""

    def __init__(self, dim: int, scale: float = 30.0) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(dim // 2) * scale, requires_grad=False)
        self.linear = nn.Linear(dim, dim)

    def forward(self, t: Tensor) -> Tensor:
        angle = t[:, None] * self.W * (2 * math.pi)  # (B, dim/2)
        return F.silu(self.linear(torch.cat([angle.sin(), angle.cos()], dim=-1)))


class Level(nn.Module):
    """One level: (transposed) convolution, cross-attention to the condition, time embedding, GroupNorm, SiLU.

    Without ``conv_cond`` the condition is unchanged. 0 ``groups`` leave out time, norm and SiLU (the output level).
    """

    def __init__(self, conv: nn.Module, conv_cond: nn.Module | None, dim: int, time_dim: int, heads: int, groups: int):
        super().__init__()
        self.conv = conv
        self.conv_cond = conv_cond if conv_cond is not None else nn.Identity()
        self.attention = Encoder(dim, heads, layers=2)
        self.time = nn.Linear(time_dim, dim) if groups else None
        self.norm = nn.GroupNorm(groups, dim) if groups else None

    def forward(self, h: Tensor, condition: Tensor | None, time: Tensor) -> tuple[Tensor, Tensor | None]:
        h = self.conv(h)  # (B, C, T')
        if condition is not None:
            condition = self.conv_cond(condition)
            h = h + self.attention(h.transpose(1, 2), condition.transpose(1, 2)).transpose(1, 2)
        if self.norm is not None:
            h = F.silu(self.norm(h + self.time(time)[..., None]))
        return h, condition


def _down(a: int, b: int, stride: int) -> nn.Conv1d:
    return nn.Conv1d(a, b, 3, stride=stride, padding=1, bias=False)


def _up(a: int, b: int) -> nn.ConvTranspose1d:
    return nn.ConvTranspose1d(a, b, 3, stride=2, padding=1, output_padding=1, bias=False)


class ScoreNet(nn.Module):
    """U-Net over (B, D, T); a condition of the same shape has its own convolutions at every level.

    The output is the scaled score std(t) * score(x, t | condition), so the network needs no SDE. ``channels`` are the
    widths of the levels, the first is D; ``heads`` divides each of them.
    """

    def __init__(self, channels: tuple[int, ...] = (32, 64, 128, 256), heads: int = 8, time_dim: int = 256) -> None:
        super().__init__()
        self.multiple = 2 ** (len(channels) - 1)  # T is padded to a multiple of this
        self.embed = TimeEmbedding(time_dim)
        c = channels
        groups = [4, *(math.gcd(32, w) for w in c[1:])]
        self.down = nn.ModuleList([Level(_down(c[0], c[0], 1), None, c[0], time_dim, heads, groups[0])])
        for i in range(1, len(c)):
            conv, conv_cond = _down(c[i - 1], c[i], 2), _down(c[i - 1], c[i], 2)
            self.down.append(Level(conv, conv_cond, c[i], time_dim, heads, groups[i]))
        self.up = nn.ModuleList()
        for i in reversed(range(1, len(c))):
            wide = c[i] if i == len(c) - 1 else 2 * c[i]  # all but the first also take a skip connection
            conv, conv_cond = _up(wide, c[i - 1]), _up(c[i], c[i - 1])
            self.up.append(Level(conv, conv_cond, c[i - 1], time_dim, heads, math.gcd(32, c[i - 1])))
        conv, conv_cond = (nn.ConvTranspose1d(width, c[0], 3, padding=1) for width in (2 * c[0], c[0]))
        self.up.append(Level(conv, conv_cond, c[0], time_dim, heads, groups=0))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        """Scaled score (B, D, T) of noisy x at times t (B,), any T >= 1; condition None: no cross-attention."""
        T = x.shape[-1]
        pad = (0, -T % self.multiple)
        h = F.pad(x, pad)
        c = None if condition is None else F.pad(condition, pad)
        time, skips = self.embed(t), []
        for level in self.down:
            h, c = level(h, c, time)
            skips.append(h)
        skips.pop()
        for i, level in enumerate(self.up):
            h, c = level(h if i == 0 else torch.cat([h, skips.pop()], dim=1), c, time)
        return h[..., :T]
