"""Transformer encoder of MulT (Tsai et al., 2019), as used by the released IMDer.

All tensors are (B, T, D). Attention is causal: step i attends to steps 0..i of the key sequence.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@lru_cache(maxsize=64)
def position_table(T: int, D: int, device: torch.device) -> Tensor:
    """Sinusoidal position vectors (T, D), D even and at least 4.

    Row p is [sin(p w), cos(p w)], p = 1..T, w_j = exp(-j ln(10000) / (D/2 - 1)).
    """
    half = D // 2
    with torch.inference_mode(False):  # an inference tensor in the cache could not be used in training
        w = torch.exp(torch.arange(half, device=device) * -(math.log(10000.0) / (half - 1)))
        angle = torch.arange(1, T + 1, device=device)[:, None] * w  # (T, D/2)
        return torch.cat([angle.sin(), angle.cos()], dim=1)


class Attention(nn.Module):
    """Causal multi-head attention with one input projection matrix (3D, D) for q, k and v."""

    def __init__(self, dim: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor | None, valid: Tensor | None = None, steps: Tensor | None = None
    ) -> Tensor:
        """Attend from query (B, T, D) to key, with arguments and result as in :meth:`Encoder.forward`."""
        T, D = query.shape[1:]
        if key is None and steps is None:
            q, k, v = F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        else:
            asked = query if steps is None else at(query, steps)
            q = F.linear(asked, self.in_proj_weight[:D], self.in_proj_bias[:D])
            other = query if key is None else key
            k, v = F.linear(other, self.in_proj_weight[D:], self.in_proj_bias[D:]).chunk(2, dim=-1)
        q, k, v = (y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in (q, k, v))  # (B, H, T, D/H)
        mask = None
        if steps is not None:
            mask = (torch.arange(T, device=steps.device) <= steps[:, None])[:, None, None]  # (B, 1, 1, T)
        elif valid is not None:
            mask = valid.new_ones(T, T).tril()
        if mask is not None and valid is not None:
            mask = mask & valid[:, None, None]  # (B, 1, T, T)
        dropout = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, is_causal=mask is None)
        return self.out_proj(out.transpose(1, 2).flatten(2))


def at(x: Tensor, steps: Tensor) -> Tensor:
    """One step of each sequence of x (B, T, D) at ``steps`` (B,): (B, 1, D)."""
    return x[torch.arange(len(x), device=x.device), steps][:, None]


class EncoderLayer(nn.Module):
    """Pre-norm layer: x += attention(LN1 x, LN1 key); x += W2 relu(W1 LN2 x), hidden width 4D."""

    def __init__(self, dim: int, heads: int, attention_dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = Attention(dim, heads, attention_dropout)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(
        self, x: Tensor, key: Tensor | None, valid: Tensor | None = None, steps: Tensor | None = None
    ) -> Tensor:
        y = self.attention(self.norm1(x), None if key is None else self.norm1(key), valid, steps)
        x = (x if steps is None else at(x, steps)) + y
        return x + self.fc2(F.relu(self.fc1(self.norm2(x))))


class Encoder(nn.Module):
    """Layers over scaled inputs with position vectors, followed by a LayerNorm.

    ``heads`` divides D = ``dim``, which is even. Dropout is that of the attention weights, and of the inputs.
    """

    def __init__(self, dim: int, heads: int, layers: int, attention_dropout: float = 0.0, embed_dropout: float = 0.0):
        super().__init__()
        if dim % heads or dim % 2 or dim < 4:
            raise ValueError(f"encoder width {dim}: expected an even number >= 4 that {heads} heads divide")
        self.layers = nn.ModuleList(EncoderLayer(dim, heads, attention_dropout) for _ in range(layers))
        self.norm, self.embed_dropout = nn.LayerNorm(dim), embed_dropout

    def embed(self, x: Tensor) -> Tensor:
        positions = position_table(*x.shape[1:], x.device).to(x.dtype) * (x[..., :1] != 0)  # none at padding, all zero
        return F.dropout(x * math.sqrt(x.shape[-1]) + positions, self.embed_dropout, self.training)

    def forward(
        self, query: Tensor, key: Tensor | None = None, valid: Tensor | None = None, steps: Tensor | None = None
    ) -> Tensor:
        """Encode ``query`` (B, T, D), which attends to ``key`` (B, T, D), or to itself if key is None.

        Args:
            valid: bool (B, T), the key steps to attend to, including the first; None: all.
            steps: (B,), the only step of each output that is needed: the last layer computes no other. None: all.

        Returns:
            (B, T, D), or (B, 1, D) with ``steps``
        """
        if key is not None and key.shape != query.shape:
            raise ValueError(f"query {tuple(query.shape)} and key {tuple(key.shape)} must have the same shape")
        x = self.embed(query)
        key = None if key is None else self.embed(key)  # the same for all layers
        for i, layer in enumerate(self.layers, 1):
            x = layer(x, key, valid, steps if i == len(self.layers) else None)
        return self.norm(x)
