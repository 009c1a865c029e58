"""The refiner: residual channel attention over recovered latents (after RCAN, Zhang et al., 2018)."""

import torch.nn.functional as F
from torch import Tensor, nn


class ChannelAttentionBlock(nn.Module):
    """x + a(y) * y, where y = conv(relu(conv(x))) and a = sigmoid(conv(relu(conv(time average of y))))."""

    def __init__(self, dim: int, reduction: int = 16) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(dim, dim, 3, padding=1), nn.Conv1d(dim, dim, 3, padding=1)
        self.squeeze, self.excite = nn.Conv1d(dim, dim // reduction, 1), nn.Conv1d(dim // reduction, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        weight = self.excite(F.relu(self.squeeze(y.mean(-1, keepdim=True)))).sigmoid()  # (B, C, 1)
        return x + y * weight


class Refiner(nn.Module):
    """1x1 convolution D -> 2D, channel-attention blocks with a residual around them, 1x1 convolution 2D -> D."""

    def __init__(self, dim: int = 32, blocks: int = 20) -> None:
        super().__init__()
        self.head = nn.Conv1d(dim, 2 * dim, 1)
        self.blocks = nn.Sequential(*(ChannelAttentionBlock(2 * dim) for _ in range(blocks)))
        self.close = nn.Conv1d(2 * dim, 2 * dim, 3, padding=1)
        self.tail = nn.Conv1d(2 * dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Refine latents: (B, D, T) -> (B, D, T)."""
        h = self.head(x)
        return self.tail(h + self.close(self.blocks(h)))
