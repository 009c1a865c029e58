"""The plain path: the release's nets written layer by layer, for ratios only. They load the kit's weights.

As in published code of this kind: tensors are (T, B, D), every encoder embeds its inputs itself (keys and values
apart), positions and causal masks are computed on each call, attention is two batched products with a softmax between.
Names of parameters are the kit's, so ``load_state_dict`` takes the weights of the kit's nets.
"""

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:  # needs packages that the nets do not
    from imder_lib.model.imder import IMDer


class PlainAttention(nn.Module):
    """Causal multi-head attention over (T, B, D)."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * dim))
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        T, B, D = query.shape
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))
        q = q * (D // self.heads) ** -0.5
        q, k, v = (x.contiguous().view(T, B * self.heads, D // self.heads).transpose(0, 1) for x in (q, k, v))
        scores = torch.bmm(q, k.transpose(1, 2))  # (B H, T, T)
        scores = scores + torch.triu(torch.full((T, T), -math.inf, device=scores.device), 1)
        weights = F.dropout(F.softmax(scores, dim=-1), self.dropout, self.training)
        return self.out_proj(torch.bmm(weights, v).transpose(0, 1).contiguous().view(T, B, D))


class PlainLayer(nn.Module):
    """Pre-norm encoder layer."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = PlainAttention(dim, heads, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor, key: Tensor | None, value: Tensor | None) -> Tensor:
        y = self.norm1(x)
        key, value = (y, y) if key is None else (self.norm1(key), self.norm1(value))
        x = x + self.attention(y, key, value)
        y = self.norm2(x)
        y = F.relu(self.fc1(y))
        return x + self.fc2(y)


class PlainEncoder(nn.Module):
    """Encoder layers over scaled inputs with positions: (T, B, D) -> (T, B, D)."""

    def __init__(self, dim: int, heads: int, layers: int, dropout: float = 0.0, embed_dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(PlainLayer(dim, heads, dropout) for _ in range(layers))
        self.norm, self.embed_dropout = nn.LayerNorm(dim), embed_dropout

    def embed(self, x: Tensor) -> Tensor:
        T, _, D = x.shape
        rate = torch.exp(torch.arange(D // 2, device=x.device) * (-math.log(10000.0) / (D // 2 - 1)))
        angle = torch.arange(1, T + 1, device=x.device)[:, None] * rate
        positions = torch.cat([angle.sin(), angle.cos()], dim=1)[:, None] * x[..., :1].ne(0)  # zero at padding
        return F.dropout(math.sqrt(D) * x + positions, self.embed_dropout, self.training)

    def forward(self, query: Tensor, source: Tensor | None = None) -> Tensor:
        x = self.embed(query)
        key = value = None
        if source is not None:
            key, value = self.embed(source), self.embed(source)
        for layer in self.layers:
            x = layer(x, key, value)
        return self.norm(x)


class PlainFusion(nn.Module):
    """The release's fusion: a cross-modal encoder for each ordered pair, then a memory encoder for each target."""

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        heads: int,
        layers: int,
        attention_dropout: dict,
        embed_dropout: float,
    ) -> None:
        super().__init__()
        self.modalities, wide = tuple(modalities), dim * (len(modalities) - 1)
        self.cross, self.memory = nn.ModuleDict(), nn.ModuleDict()
        for target in self.modalities:
            for source in self.modalities:
                if source != target:
                    drop = attention_dropout.get(source, 0.0)
                    self.cross[f"{target}<{source}"] = PlainEncoder(dim, heads, layers, drop, embed_dropout)
            self.memory[target] = PlainEncoder(wide, heads, layers, 0.0, embed_dropout)
        width = wide * len(modalities)
        self.proj1, self.proj2, self.out = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, latents: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        x = {m: latents[m].permute(2, 0, 1) for m in self.modalities}  # (T, B, D)
        last = {}
        for target in self.modalities:
            sources = [m for m in self.modalities if m != target]
            h = torch.cat([self.cross[f"{target}<{m}"](x[target], x[m]) for m in sources], dim=2)
            last[target] = self.memory[target](h)[-1]
        h = torch.cat([last[m] for m in self.modalities], dim=1)
        return self.out(self.proj2(F.relu(self.proj1(h))) + h), last


class PlainLevel(nn.Module):
    """One level of the U-Net: convolutions of both paths, cross-attention, time, norm, activation."""

    def __init__(self, conv: nn.Module, conv_cond: nn.Module, dim: int, time: int, heads: int, groups: int) -> None:
        super().__init__()
        self.conv, self.conv_cond, self.attention = conv, conv_cond, PlainEncoder(dim, heads, 2)
        self.time = nn.Linear(time, dim) if groups else None
        self.norm = nn.GroupNorm(groups, dim) if groups else None

    def forward(self, h: Tensor, condition: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        h, condition = self.conv(h), self.conv_cond(condition)
        h = h + self.attention(h.permute(2, 0, 1), condition.permute(2, 0, 1)).permute(1, 2, 0)
        if self.norm is not None:
            h = self.norm(h + self.time(time)[:, :, None])
            h = h * torch.sigmoid(h)
        return h, condition


class PlainScoreNet(nn.Module):
    """The release's U-Net over (B, D, T), with a condition."""

    def __init__(self, channels: Sequence[int], heads: int, time: int = 256) -> None:
        super().__init__()
        c, self.multiple = list(channels), 2 ** (len(channels) - 1)
        self.embed = nn.Module()
        self.embed.W, self.embed.linear = nn.Parameter(torch.empty(time // 2), False), nn.Linear(time, time)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, w in enumerate(c):
            options = {"kernel_size": 3, "stride": 2 if i else 1, "padding": 1, "bias": False}
            conv = nn.Conv1d(c[max(i - 1, 0)], w, **options)
            conv_cond = nn.Conv1d(c[i - 1], w, **options) if i else nn.Identity()
            self.down.append(PlainLevel(conv, conv_cond, w, time, heads, math.gcd(32, w) if i else 4))
        for i in reversed(range(1, len(c))):
            wide = c[i] if i == len(c) - 1 else 2 * c[i]
            options = {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1, "bias": False}
            pair = (nn.ConvTranspose1d(width, c[i - 1], **options) for width in (wide, c[i]))
            self.up.append(PlainLevel(*pair, c[i - 1], time, heads, math.gcd(32, c[i - 1])))
        pair = (nn.ConvTranspose1d(width, c[0], 3, padding=1) for width in (2 * c[0], c[0]))
        self.up.append(PlainLevel(*pair, c[0], time, heads, 0))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        T = x.shape[-1]
        h, c = (F.pad(y, (0, -T % self.multiple)) for y in (x, condition))
        angle = t[:, None] * self.embed.W[None] * 2 * math.pi
        time = self.embed.linear(torch.cat([torch.sin(angle), torch.cos(angle)], dim=1))
        time = time * torch.sigmoid(time)
        skips = []
        for level in self.down:
            h, c = level(h, c, time)
            skips.append(h)
        for i, level in enumerate(self.up):
            h, c = level(h if i == 0 else torch.cat([h, skips[-1 - i]], dim=1), c, time)
        return h[:, :, :T]


def plain_score_net(net: nn.Module, channels: Sequence[int], heads: int) -> PlainScoreNet:
    """The plain path of a ScoreNet, with its weights."""
    plain = PlainScoreNet(channels, heads).to(next(net.parameters()).device)
    plain.load_state_dict(net.state_dict())
    return plain.train(net.training)


def plain_fusion(model: "IMDer") -> PlainFusion:
    """The plain path of a model's fusion, with its weights; the model has neither readout nor masked padding."""
    dim, c = model.config.dim, model.config.fusion
    plain = PlainFusion(model.modalities, dim, c.heads, c.layers, dict(c.attention_dropout), c.embed_dropout)
    plain.to(next(model.parameters()).device).load_state_dict(model.fusion.state_dict())
    return plain.train(model.training)


def plain_model(model: "IMDer") -> "IMDer":
    """A copy of a model under the released rules whose score nets and fusion are the plain path."""
    out, c = copy.deepcopy(model), model.config
    for m, net in model.recoverer.score_nets.items():
        out.recoverer.score_nets[m] = plain_score_net(net, (c.dim, *c.unet.channels), c.unet.heads)
    out.fusion = plain_fusion(model)
    return out
