"""Cases of an evaluation: protocols, and their patterns and rates for any number of modalities."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real

import numpy as np

from imder_lib.data.missing import PROTOCOLS, RATES, patterns, rates_text
from imder_lib.errors import UserError, unknown

# (protocol, pattern, nominal rate, or rates as text), and for "released" perhaps the batch size that it counts in
Case = tuple[str, str | float] | tuple[str, float, int]
HIGH, LOW = 0.7, 0.1  # rates of one modality and of the others, where "imbalanced" comes without rates


def rates_of(protocol: str, modalities: Sequence[str]) -> tuple[float, ...]:
    """Rates that M modalities allow: "random" up to (M-1)/M (.7 is 2/3), "released" for three only."""
    M = 3 if protocol == "instance" else len(modalities)
    return RATES if M == 3 else tuple(r for r in RATES if protocol == "random" and r <= (M - 1) / M)


def cases(protocols: str | Iterable[str | Case], modalities: Sequence[str]) -> list[Case]:
    """Expand protocols to cases: "fixed" to all patterns, "imbalanced" to one for each modality, others to rates."""
    out: list[Case] = []
    for entry in [protocols] if isinstance(protocols, str) else protocols:
        if entry == "fixed":
            out += [("fixed", "+".join(p)) for p in patterns(modalities)]
        elif entry == "imbalanced":
            out += [(entry, rates_text({n: HIGH if n == m else LOW for n in modalities})) for m in modalities]
        elif isinstance(entry, str) and entry in PROTOCOLS:
            out += [(entry, r) for r in rates_of(entry, modalities) or RATES]  # RATES: availability says why not
        elif isinstance(entry, str):
            raise unknown("unknown protocol", entry, PROTOCOLS)
        else:
            out.append(_case(entry))
    return out


def _case(entry: Sequence) -> Case:
    """A case with a number of any kind, a pattern as text or names, or rates by modality."""
    try:
        protocol, case, *batch = entry
        if len(batch) > (protocol == "released"):
            raise ValueError
        if isinstance(case, np.generic):
            case = float(str(case))  # .3 as float32 means .3
        case = rates_text(case) if isinstance(case, Mapping) else case
        return protocol, case if case is None or isinstance(case, str | Real) else "+".join(case), *batch
    except (TypeError, ValueError):
        raise UserError(f"protocols: expected names or pairs (protocol, pattern or rates), got {entry!r}") from None
