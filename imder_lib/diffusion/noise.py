"""Noise sources: None (torch's default generator), a torch.Generator, or a :class:`SampleNoise`.

Numbers of a SampleNoise depend on (seed, sample id, stream) only, not on the batch, its order or the device.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

# Constants of SplitMix64 as signed numbers: the step of its counter, and two factors of its hash.
GAMMA, MIX1, MIX2 = (c - 2**64 for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
LOW = 2**24 - 1  # as many bits as float32 can tell apart in [0, 1)


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from printable parts, the same in all processes and on all machines."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's default generators inside the block; their states are restored after it."""
    with torch.random.fork_rng(range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()):
        torch.manual_seed(seed)
        yield


def _mix(z: Tensor) -> Tensor:
    """The output function of SplitMix64 (Steele, Lea & Flood, 2014), a hash of int64 numbers; changes z in place."""
    for shift, factor in ((30, MIX1), (27, MIX2)):
        z ^= (z >> shift) & ((1 << 64 - shift) - 1)  # masked: the shift of signed numbers repeats the sign
        z *= factor  # int64 products wrap
    z ^= (z >> 31) & ((1 << 33) - 1)
    return z


class SampleNoise:
    """Noise of samples, computed on the device from (seed, id, stream), the number of the call and of the element.

    Such a counter-based generator has no sequence to keep: all numbers of a batch are computed at once.

    Args:
        seed: of the run.
        ids: sample ids, one per row.
        stream: what the noise is used for, of all rows or one per row; different names get different numbers.
    """

    def __init__(self, seed: int, ids: Sequence[str], stream: str | Sequence[str] = "") -> None:
        self.seed, self.ids = seed, list(ids)
        self.streams = [stream] * len(self.ids) if isinstance(stream, str) else list(stream)
        self.calls, self.keys = 0, torch.empty(0)  # keys are computed on demand: many noises only spawn others

    def spawn(self, rows: Sequence[int], stream: str) -> "SampleNoise":
        """New noise for the given rows, under a stream below theirs."""
        return SampleNoise(self.seed, [self.ids[i] for i in rows], [f"{self.streams[i]}/{stream}" for i in rows])

    def draws(self, numbers: Sequence[int], rows: slice) -> "SampleNoise":
        """New noise for some draws of some rows, (draw, row) in this order; that of draw 0 is this noise itself."""
        streams = [f"{stream}/draw{k}" if k else stream for k in numbers for stream in self.streams[rows]]
        return SampleNoise(self.seed, self.ids[rows] * len(numbers), streams)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers with the shape (B, ...), device and dtype of ``like``; row i belongs to id i.

        SplitMix64 gives 64 bits for every two elements, and the transform of Box & Muller (1958) turns them into two
        normal numbers, at most 5.9 in size. On another device they differ by rounding only.
        """
        if len(like) != len(self.ids):
            raise ValueError(f"expected {len(self.ids)} rows, one per id, got {len(like)}; for some, use noise.spawn")
        if not len(self.keys):
            seeds = [derive_seed(self.seed, *row) for row in zip(self.ids, self.streams, strict=True)]
            self.keys = torch.tensor(seeds, dtype=torch.int64)
        self.keys = self.keys.to(like.device)
        count = math.prod(like.shape[1:])
        counter = torch.arange(1, -(-count // 2) + 1, device=like.device) * GAMMA
        bits = _mix(_mix(self.keys ^ self.calls)[:, None] + counter)
        self.calls += 1
        angle = (bits & LOW).float().mul_(math.tau / 2**24)
        bits >>= 40
        radius = (bits & LOW).float().add_(0.5).mul_(2**-24).log_().mul_(-2).sqrt_()
        out = torch.cat([radius * angle.cos(), radius * angle.sin_()], dim=1)
        return out[:, :count].reshape(like.shape).to(like)


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
