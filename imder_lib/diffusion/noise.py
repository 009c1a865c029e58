"""Where random numbers come from.

A noise source is None (torch's default generator), a torch.Generator, or a SampleNoise, whose draws for a
sample depend on (seed, sample id, stream) only: not on the batch, its order, or the device.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any printable parts, stable across processes and machines."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's default generators seeded inside the block and put back after it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


class SampleNoise:
    """One generator a sample, seeded by (seed, id, stream).

    Args:
        seed: of the run.
        ids: sample ids, one for each row that will be drawn.
        stream: names what the noise is for, so that two uses never share numbers.
    """

    def __init__(self, seed: int, ids: Sequence[str], stream: str = "") -> None:
        self.seed, self.ids, self.stream = seed, list(ids), stream
        self.generators = [torch.Generator().manual_seed(derive_seed(seed, i, stream)) for i in self.ids]

    def spawn(self, rows: Sequence[int], stream: str) -> "SampleNoise":
        """The noise of some rows for another use; starts fresh."""
        return SampleNoise(self.seed, [self.ids[i] for i in rows], f"{self.stream}/{stream}")

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of ``like``'s shape (B, ...), device and dtype; row i from generator i."""
        if len(like) != len(self.generators):
            raise ValueError(f"noise for {len(self.generators)} samples was asked for {len(like)} rows")
        rows = [torch.randn(like.shape[1:], generator=g) for g in self.generators]
        return torch.stack(rows).to(like) if rows else torch.empty_like(like)


Noise = torch.Generator | SampleNoise | None


def normal(like: Tensor, noise: Noise) -> Tensor:
    """Standard normal numbers of ``like``'s shape, device and dtype from a noise source."""
    if isinstance(noise, SampleNoise):
        return noise.normal(like)
    if noise is None:
        return torch.randn_like(like)
    return torch.randn(like.shape, generator=noise, device=noise.device, dtype=like.dtype).to(like.device)


def uniform(like: Tensor, noise: torch.Generator | None) -> Tensor:
    """Numbers uniform in [0, 1), one for each row of ``like``: (B,)."""
    device = like.device if noise is None else noise.device
    return torch.rand(len(like), generator=noise, device=device, dtype=like.dtype).to(like.device)
