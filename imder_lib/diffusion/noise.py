"""Noise sources: None (torch's default generator), a torch.Generator, or a :class:`SampleNoise`.

The numbers that a SampleNoise gives to a sample depend on (seed, sample id, stream) only, not on the batch, its order
or the device.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from printable parts, the same in all processes and on all machines."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's default generators inside the block; their states are restored after it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


class SampleNoise:
    """One generator per sample, seeded by (seed, id, stream).

    Args:
        seed: of the run.
        ids: sample ids, one per row.
        stream: what the noise is used for; different names get different numbers.
    """

    def __init__(self, seed: int, ids: Sequence[str], stream: str = "") -> None:
        self.seed, self.ids, self.stream = seed, list(ids), stream
        self.generators = [torch.Generator().manual_seed(derive_seed(seed, i, stream)) for i in self.ids]

    def spawn(self, rows: Sequence[int], stream: str) -> "SampleNoise":
        """New noise for the given rows, under a stream below this one."""
        return SampleNoise(self.seed, [self.ids[i] for i in rows], f"{self.stream}/{stream}")

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers with the shape (B, ...), device and dtype of ``like``; row i from generator i."""
        if len(like) != len(self.generators):
            raise ValueError(f"expected {len(self.generators)} rows, one per sample id, got {len(like)}")
        out = torch.empty(like.shape)
        for row, generator in zip(out, self.generators, strict=True):
            row.normal_(generator=generator)
        return out.to(like)


Noise = torch.Generator | SampleNoise | None


def normal(like: Tensor, noise: Noise) -> Tensor:
    """Standard normal numbers with the shape, device and dtype of ``like``, from a noise source."""
    if isinstance(noise, SampleNoise):
        return noise.normal(like)
    if noise is None:
        return torch.randn_like(like)
    return torch.randn(like.shape, generator=noise, device=noise.device, dtype=like.dtype).to(like.device)


def uniform(like: Tensor, noise: torch.Generator | None) -> Tensor:
    """Uniform numbers in [0, 1), one per row of ``like``: (B,)."""
    device = like.device if noise is None else noise.device
    return torch.rand(len(like), generator=noise, device=device, dtype=like.dtype).to(like.device)
