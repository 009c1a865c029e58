"""Cases of an evaluation: protocols, and their patterns and rates for any number of modalities."""

from collections.abc import Iterable, Sequence
from numbers import Real

import numpy as np

from imder_lib.data.missing import PROTOCOLS, RATES, patterns
from imder_lib.errors import UserError, unknown

Case = tuple[str, str | float]  # (protocol, pattern or nominal rate)


def rates_of(protocol: str, modalities: Sequence[str]) -> tuple[float, ...]:
    """Rates of a protocol that M modalities allow: up to (M-1)/M (.7 is 2/3), and "released" for three only."""
    M = len(modalities)
    return RATES if M == 3 else tuple(r for r in RATES if protocol == "random" and r <= (M - 1) / M)


def cases(protocols: str | Iterable[str | Case], modalities: Sequence[str]) -> list[Case]:
    """Expand protocols to cases: "fixed" to all patterns, "random" and "released" to their rates."""
    out: list[Case] = []
    for entry in [protocols] if isinstance(protocols, str) else protocols:
        if entry == "fixed":
            out += [("fixed", "+".join(p)) for p in patterns(modalities)]
        elif isinstance(entry, str) and entry in PROTOCOLS:
            out += [(entry, r) for r in rates_of(entry, modalities) or RATES]  # RATES: availability says why not
        elif isinstance(entry, str):
            raise unknown("unknown protocol", entry, PROTOCOLS)
        else:
            out.append(_case(entry))
    return out


def _case(entry: Sequence) -> Case:
    """A pair with a number of any kind, or a pattern as text or names."""
    try:
        protocol, case = entry
        if isinstance(case, np.generic):
            case = float(str(case))  # .3 as float32 means .3
        return protocol, case if case is None or isinstance(case, str | Real) else "+".join(case)
    except (TypeError, ValueError):
        raise UserError(f"protocols: expected names or pairs (protocol, pattern or rate), got {entry!r}") from None
