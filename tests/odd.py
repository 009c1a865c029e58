"""Odd values and damaged bytes for the tests named test_fuzz*.py."""

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from imder_lib import UserError

ODD = st.sampled_from([0, 1, -1, 0.3, 3.7, 1e309, -1e309, float("nan"), True, False, None, "", "kit", "a\nb",
                       "../..", 10**30, "fixed", "random", "imbalanced", "staged", "text", "é\ud800"])  # fmt: skip
JSON = st.recursive(
    ODD | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | ODD.map(str), inner, max_size=3),
    max_leaves=6,
)
CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), max_size=5)
FEW = settings(max_examples=settings.default.max_examples // 5)  # of cases that read and write several files
CUT = st.just(0) | st.integers(0, 10**6)


def damaged(content: bytes, changes: list[tuple[int, int]], cut: int) -> bytes:
    """Some bytes changed, and a part of the end cut off."""
    out = bytearray(content)
    for at, change in changes:
        out[at % len(out)] ^= change
    return bytes(out[: len(out) - cut % len(out)])


def tried(call: Callable, *arguments: Any) -> Any:
    """What a call returns, or None after a UserError, whose message is one that can be read."""
    try:
        return call(*arguments)
    except UserError as error:
        assert 10 < len(str(error)) < 2000
        return None
