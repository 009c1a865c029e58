"""Checks of the arrays of a file, each with one UserError that names the place."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from imder_lib.errors import UserError

LIMIT = np.float64(1e15)  # sums of squares of such numbers, over frames and channels, still fit in float32
BELOW = np.array([[1 << 20], [2], [2]])  # of text_bert's ids (no published vocabulary is larger), mask and segments


def check_numbers(x: np.ndarray, where: str) -> None:
    """Raise UserError with the row of the first number that is not finite or beyond LIMIT: training would overflow."""
    if x.min() >= -LIMIT and x.max() <= LIMIT:  # false for NaN; no copy of a large array
        return
    index = tuple(map(int, np.unravel_index((~((x >= -LIMIT) & (x <= LIMIT))).argmax(), x.shape)))
    what = f"lie within +-{LIMIT:g} (training overflows)" if np.isfinite(x[index]) else "be finite"
    got = f"{x[index]} at {index}; every number must {what}: correct it or leave the row out"
    raise UserError(f"{where}, row {index[0]}: {got}")


def check_tokens(tokens: np.ndarray, where: str) -> None:
    """Raise UserError with the row of the first number in text_bert (N, 3, T) that is no token id, mask or segment."""
    wrong = ~((tokens >= 0) & (tokens < BELOW) & (tokens == np.floor(tokens)))
    if wrong.any():
        index = tuple(map(int, np.unravel_index(wrong.argmax(), wrong.shape)))
        what = ("whole token ids from 0", "a mask of 0 and 1", "segments of 0 and 1")[index[1]]
        raise UserError(f"{where}, key 'text_bert', row {index[0]}: {tokens[index]:g} at {index}; expected {what}")


def check_available(value: Any, where: str, n: int, modalities: Sequence[str]) -> np.ndarray | None:
    """The mask that a file gives: bool (n, M), columns in the order of ``modalities``; None if nothing is missing.

    A UserError, beginning with ``where``, for other shapes, types and values, or a sample without any modality.
    """
    if value is None:
        return None
    expected = f"expected bool or 0 and 1, {(n, len(modalities))}, with a column for each of {list(modalities)}"
    try:
        array = np.asarray(value)
    except ValueError:
        raise UserError(f"{where}: rows of unequal length, {expected}") from None
    if array.shape != (n, len(modalities)) or array.dtype.kind not in "biu":
        raise UserError(f"{where}: {array.dtype} {array.shape}, {expected}")
    if len(wrong := np.argwhere((array != 0) & (array != 1))):
        raise UserError(f"{where}, row {wrong[0, 0]}: {array[tuple(wrong[0])]}, {expected}")
    if len(empty := np.flatnonzero(~array.any(axis=1))):
        raise UserError(f"{where}, row {empty[0]}: no modality is available, one must be: leave the row out")
    return None if array.all() else array.astype(bool)
