"""Missing protocols: which modalities of which sample are available."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from imder_lib.diffusion.noise import derive_seed
from imder_lib.errors import UserError, unknown

PROTOCOLS = ("fixed", "random", "released", "instance", "imbalanced")
# Shares of samples (in the release: of batches) with two and with one of three modalities missing, at these rates.
RATES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
MISS_TWO = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)
MISS_ONE = (0.0, 0.1, 0.2, 0.3, 0.2, 0.1, 0.0, 0.0)


def patterns(modalities: Sequence[str], complete: bool = True) -> list[tuple[str, ...]]:
    """Every non-empty pattern of available modalities, fewest first; the complete pattern only if ``complete``."""
    return [p for n in range(1, len(modalities) + complete) for p in combinations(modalities, n)]


def available_columns(patterns_: Iterable[str | Iterable[str]], modalities: Sequence[str]) -> Tensor:
    """Patterns, ("text", "audio") or "text+audio", as rows of a bool matrix (P, M)."""
    rows = []
    for pattern in patterns_:
        names = pattern.split("+") if isinstance(pattern, str) else list(pattern)
        if not names or set(names) - set(modalities) or len(set(names)) < len(names):
            raise UserError(f"pattern {pattern!r}: expected distinct names out of {list(modalities)}, joined by '+'")
        rows.append([m in names for m in modalities])
    return torch.tensor(rows)


def modality_rates(given: object, modalities: Sequence[str]) -> list[float]:
    """Missing rates in the order of ``modalities``, 0 for those not named.

    Args:
        given: modality -> rate in [0, 1], or the same as text, see :func:`rates_text`.
    """
    try:
        text = rates_text(given) if isinstance(given, Mapping) else given
        pairs = [pair.rpartition("=") for pair in text.split("+")]
        rates = {name: float(rate) for name, _, rate in pairs}
        if len(rates) == len(pairs) and set(rates) <= set(modalities) and all(0 <= r <= 1 for r in rates.values()):
            return [rates.get(m, 0.0) for m in modalities]
    except (AttributeError, ValueError):  # neither text nor mapping, or a rate is no number
        pass
    raise UserError(f"rates {given!r}: expected rates in [0, 1] of some of {list(modalities)}, such as "
                    f"{rates_text(dict.fromkeys(modalities[:2], 0.3))!r}")  # fmt: skip


def rates_text(rates: Mapping[str, object]) -> str:
    """Rates by modality as the text of a case: "text=0.1+audio=0.7"."""
    return "+".join(f"{m}={r!s}" for m, r in rates.items())


def nominal_rate(protocol: str, case: object, modalities: Sequence[str]) -> float:
    """Missing rate of a case: its rate, the mean of its modalities' rates, or the share that a pattern lacks."""
    if protocol == "fixed":
        return 1 - len(str(case).split("+")) / len(modalities)
    return float(np.mean(modality_rates(case, modalities))) if protocol == "imbalanced" else float(case)


def missing_counts(n: int, M: int, rate: float) -> list[int]:
    """How many of n samples miss 0, 1, .., M-1 modalities, so that the missing rate is met within 1/(M n).

    For three modalities the shares are the release's, interpolated between its rates. For other numbers every sample
    misses floor(M rate) modalities or one more.
    """
    highest = (M - 1) / M
    rate = highest if M == 3 and rate == 0.7 else rate  # the release calls 2/3 "0.7"
    if not 0 <= rate <= highest + 1e-9:
        raise UserError(f"rate {rate} is outside [0, {highest:.4g}]: at least one of {M} modalities must be available")
    total, counts = round(M * n * rate), [0] * (M + 1)
    if M == 3:
        two = min(round(n * float(np.interp(rate, [*RATES[:-1], highest], MISS_TWO))), total // 2)
        counts[2] = max(two, total - n)  # the other samples miss at most one
        counts[1] = total - 2 * counts[2]
    else:
        low = min(total // n, M - 1)
        counts[low : low + 2] = [n - (total - low * n), total - low * n]
    return [n - sum(counts[1:]), *counts[1:M]]


def availability(
    protocol: str,
    n: int,
    modalities: Sequence[str],
    rate: float | str | Iterable[str] | Mapping[str, float] | None = None,
    seed: int = 0,
    ids: Sequence[str] | None = None,
    *,
    batch_size: int = 32,
) -> Tensor:
    """Which modalities of n samples are available, bool (n, M); at least one of each sample is.

    Args:
        protocol: "fixed": the same pattern for every sample. "random": exact counts, see :func:`missing_counts`; which
            modalities a sample misses depends on (seed, id), and how many on its rank among all ids. "released": the
            release's rule for consecutive batches, with its counters and rounding, but nothing is missing at rate 0
            (the release drops two of three). "instance": each modality of each sample is missing with the same
            probability. "imbalanced": the same with a probability for each modality (as in MCE, Zhao et al., 2025).
            Both depend on (seed, id), and what is missing stays missing if all probabilities are raised by one factor.
            One of all that would be missing is kept, each as often: a modality's rate is r - R/M, with R the product of
            all r.
        rate: nominal missing rate in [0, (M-1)/M] for "random" (.7 means 2/3), one of 0, .1, .., .7 for "released", in
            [0, 1] for "instance"; the pattern for "fixed"; see :func:`modality_rates` for "imbalanced".
        ids: sample ids; "0", "1", .. if None.
        batch_size: for "released".
    """
    ids = [str(i) for i in (range(n) if ids is None else ids)]
    if len(ids) != n or n < 1:
        raise UserError(f"expected {n} >= 1 ids, got {len(ids)}")
    if protocol not in PROTOCOLS:
        raise unknown("unknown protocol", protocol, PROTOCOLS)
    if protocol == "fixed":
        if rate is None or isinstance(rate, int | float):
            raise UserError(f"protocol 'fixed' needs a pattern like {'+'.join(modalities[:2])!r}, got {rate!r}")
        return available_columns([rate], modalities).repeat(n, 1)
    if protocol == "imbalanced":
        return _independent(modality_rates(rate, modalities), seed, ids)
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        raise UserError(f"protocol {protocol!r} needs a missing rate as a number, got {rate!r}")
    M = len(modalities)
    if protocol == "instance":
        if not 0 <= rate <= 1:
            raise UserError(f"rate {rate} is outside [0, 1]: protocol 'instance' needs a probability")
        return _independent([rate] * M, seed, ids)
    if protocol == "released":
        return _released(n, M, rate, seed, batch_size)
    out = torch.ones(n, M, dtype=torch.bool)
    missing = np.repeat(range(M), missing_counts(n, M, rate))[::-1]
    by_rank = sorted(range(n), key=lambda i: derive_seed(seed, ids[i], "rank"))
    for i, k in zip(by_rank, missing, strict=True):
        order = np.random.default_rng(derive_seed(seed, ids[i], "which")).permutation(M)
        out[i, order[:k].copy()] = False
    return out


def _released(n: int, M: int, rate: float, seed: int, batch_size: int) -> Tensor:
    """Two modalities are missing in the first batches, one in the next, none in the rest."""
    if M != 3 or not any(abs(rate - r) < 1e-9 for r in RATES):
        raise UserError(f"protocol 'released' supports three modalities and rates {RATES}, got {M} and {rate}")
    two, one = (round(10 * share[round(rate * 10)]) for share in (MISS_TWO, MISS_ONE))  # in tenths
    starts = range(0, n, batch_size)
    divisor = round(len(starts) / 10) * 10  # Python's rounding, as in the release; up to five batches miss nothing
    rng = np.random.default_rng(derive_seed(seed, "released"))
    out = torch.ones(n, M, dtype=torch.bool)
    for i, start in enumerate(starts):
        k = 2 if 10 * i < two * divisor else 1 if 10 * i < (two + one) * divisor else 0
        out[start : start + batch_size, rng.choice(M, size=k, replace=False).tolist()] = False
    return out


def _independent(rates: Sequence[float], seed: int, ids: Sequence[str]) -> Tensor:
    """Modality m is missing where a uniform number of (seed, id) is below its rate; one of all is kept."""
    u = np.array([np.random.default_rng(derive_seed(seed, i, "instance")).random(len(rates)) for i in ids])
    missing = u < np.array(rates)
    none = missing.all(axis=1)
    missing[none, (u[none] / rates).argmax(axis=1)] = False  # the last to go while all rates rise by one factor
    return torch.from_numpy(~missing)


def restrict(available: Tensor, given: Tensor) -> Tensor:
    """Masks (..., M) within ``given`` (what each sample has); a mask that would be empty becomes ``given``."""
    kept = available & given
    return torch.where(kept.any(dim=-1, keepdim=True), kept, given)


def realised_rate(available: Tensor) -> float:
    """Share of missing modalities over all samples."""
    return float((~available).double().mean())
