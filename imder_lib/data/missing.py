"""Missing protocols: which modalities of which sample are available."""

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from imder_lib.diffusion.noise import derive_seed
from imder_lib.errors import UserError

PROTOCOLS = ("fixed", "random", "released")
# The release's shares of samples (there: batches) that miss two and one of three modalities, at its seven rates.
RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
MISS_TWO = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
MISS_ONE = (0.0, 0.1, 0.2, 0.3, 0.2, 0.1, 0.0, 0.0)


def patterns(modalities: Sequence[str], complete: bool = True) -> list[tuple[str, ...]]:
    """Every non-empty pattern of available modalities, fewest first; without the complete one on request."""
    sizes = range(1, len(modalities) + complete)
    return [p for n in sizes for p in combinations(modalities, n)]


def pattern_row(pattern: str | Iterable[str], modalities: Sequence[str]) -> list[bool]:
    """A pattern, ("text", "audio") or "text+audio", as one row of ``available``."""
    names = pattern.split("+") if isinstance(pattern, str) else list(pattern)
    if not names or set(names) - set(modalities) or len(set(names)) < len(names):
        raise UserError(f"pattern {pattern!r}: expected distinct names out of {list(modalities)}, joined by '+'")
    return [m in names for m in modalities]


def available_columns(patterns_: Iterable[Iterable[str]], modalities: Sequence[str]) -> Tensor:
    """Patterns as rows of a bool matrix (P, M)."""
    return torch.tensor([pattern_row(p, modalities) for p in patterns_])


def missing_counts(n: int, M: int, rate: float) -> list[int]:
    """How many of n samples miss 0, 1, .., M-1 modalities, so that the rate is met within 1/(M n).

    Three modalities follow the release's shares, interpolated between its seven rates. Other numbers spread evenly:
    every sample misses floor(M rate) or one more.
    """
    highest = (M - 1) / M
    rate = highest if M == 3 and rate == 0.7 else rate  # the release calls 2/3 "0.7"
    if not 0 <= rate <= highest + 1e-9:
        raise UserError(f"rate {rate} is outside [0, {highest:.4g}]: of {M} modalities at least one must stay")
    total, counts = round(M * n * rate), [0] * M
    if M == 3:
        knots = [*RATES[:-1], highest]
        two = min(round(n * float(np.interp(rate, knots, MISS_TWO))), total // 2)
        two = max(two, total - n)  # the rest must fit into the remaining samples, one each
        counts[2], counts[1] = two, total - 2 * two
    else:
        low = min(total // n, M - 1)
        counts[low] = n - (total - low * n)
        if low + 1 < M:
            counts[low + 1] = total - low * n
    counts[0] = n - sum(counts[1:])
    return counts


def availability(
    protocol: str,
    n: int,
    modalities: Sequence[str],
    rate: float | str | Iterable[str] | None = None,
    seed: int = 0,
    ids: Sequence[str] | None = None,
    *,
    pattern: str | Iterable[str] | None = None,
    batch_size: int = 32,
) -> Tensor:
    """Which modalities of n samples are available; at least one always is.

    Args:
        protocol: "fixed": the same pattern for every sample. "random": exact counts, see :func:`missing_counts`;
            who misses what depends on (seed, id) alone, not on order. "released": the release's rule for batches in
            order, with its counters and rounding (but nothing is missing at rate 0, where it drops two of three).
        n: number of samples.
        modalities: M names; columns of the result.
        rate: nominal missing rate in [0, (M-1)/M] for "random" (.7 means 2/3), one of 0, .1, .., .7 for "released";
            for "fixed" the pattern may stand here.
        seed: of the mask.
        ids: sample ids; "0", "1", .. if None.
        pattern: for "fixed".
        batch_size: for "released".

    Returns:
        bool (n, M)
    """
    M = len(modalities)
    ids = [str(i) for i in range(n)] if ids is None else [str(i) for i in ids]
    if len(ids) != n or n < 1:
        raise UserError(f"expected {n} >= 1 ids, got {len(ids)}")
    if protocol == "fixed":
        pattern = rate if pattern is None else pattern
        if pattern is None or isinstance(pattern, int | float):
            raise UserError(f"protocol 'fixed' needs a pattern like {'+'.join(modalities[:2])!r}, got {pattern!r}")
        return torch.tensor([pattern_row(pattern, modalities)] * n)
    if protocol not in PROTOCOLS:
        raise UserError(f"unknown protocol {protocol!r}: expected one of {PROTOCOLS}")
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise UserError(f"protocol {protocol!r} needs a missing rate as a number, got {rate!r}")
    out = torch.ones(n, M, dtype=torch.bool)
    if protocol == "released":
        for start, missing in zip(
            range(0, n, batch_size), _released_batches(n, M, rate, seed, batch_size), strict=True
        ):
            out[start : start + batch_size, missing] = False
        return out
    rank = sorted(range(n), key=lambda i: derive_seed(seed, ids[i], "rank"))
    counts = missing_counts(n, M, rate)
    k_of_rank = [k for k in reversed(range(M)) for _ in range(counts[k])]
    for i, k in zip(rank, k_of_rank, strict=True):
        order = np.random.default_rng(derive_seed(seed, ids[i], "which")).permutation(M)
        out[i, order[:k].copy()] = False
    return out


def _released_batches(n: int, M: int, rate: float, seed: int, batch_size: int) -> list[list[int]]:
    """For each batch in order, the columns that it misses: first batches that miss two, then one, then none."""
    if M != 3 or not any(abs(rate - r) < 1e-9 for r in RATES):
        raise UserError(f"protocol 'released' knows three modalities and rates {RATES}, got {M} and {rate}")
    tenths = round(rate * 10)
    two, one = round(10 * MISS_TWO[tenths]), round(10 * MISS_ONE[tenths])  # shares in tenths
    batches = -(-n // batch_size)
    divisor = round(batches / 10) * 10  # Python's rounding, as the release; 0 up to five batches: nothing is masked
    rng = np.random.default_rng(derive_seed(seed, "released"))
    out = []
    for i in range(batches):
        k = 0
        if divisor:
            k = 2 if 10 * i < two * divisor else 1 if 10 * i < (two + one) * divisor else 0
        out.append(rng.choice(M, size=k, replace=False).tolist())
    return out


def realised_rate(available: Tensor) -> float:
    """Share of missing modalities over all samples."""
    return float((~available).double().mean())
