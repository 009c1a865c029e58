"""Checks of names, numbers and tokens."""

from collections.abc import Iterable
from difflib import get_close_matches

import numpy as np
from torch import nn

from imder_lib.errors import UserError

LIMIT = np.float64(1e15)  # sums of squares of such numbers, over frames and channels, still fit in float32
BELOW = np.array([[1 << 20], [2], [2]])  # of text_bert's ids (no published vocabulary is larger), mask and segments


def did_you_mean(name: str, names: Iterable[object]) -> str:
    """A hint for a message: the nearest of ``names``, or nothing."""
    near = get_close_matches(name, list(map(str, names)), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def check_names(names: Iterable[str], where: str) -> None:
    """Names of modalities are parts of patterns, parameter names and file names; a UserError for one that cannot be."""
    for m in names:
        bad = not 0 < len(m) <= 60 or not m.isprintable() or set(m) & set(".+</\\") or m.endswith("_lengths")
        if bad or hasattr(nn.ModuleDict, m) or m == "training":  # the last two are PyTorch's
            rule = "1 to 60 printable characters, without . + < / \\, no ending '_lengths', no name that PyTorch uses"
            raise UserError(f"{where}: a modality cannot have the name {m!r:.80}; expected {rule}: rename it")


def check_numbers(x: np.ndarray, where: str) -> None:
    """A UserError with the row of the first number that is not finite or beyond LIMIT: training would overflow."""
    if x.min() >= -LIMIT and x.max() <= LIMIT:  # false for NaN; no copy of a large array
        return
    index = tuple(map(int, np.unravel_index((~((x >= -LIMIT) & (x <= LIMIT))).argmax(), x.shape)))
    what = f"lie within +-{LIMIT:g} (training overflows)" if np.isfinite(x[index]) else "be finite"
    got = f"{x[index]} at {index}; every number must {what}: correct it or leave the row out"
    raise UserError(f"{where}, row {index[0]}: {got}")


def check_tokens(tokens: np.ndarray, where: str) -> None:
    """A UserError with the row of the first number in text_bert (N, 3, T) that is no token id, mask or segment."""
    wrong = ~((tokens >= 0) & (tokens < BELOW) & (tokens == np.floor(tokens)))
    if wrong.any():
        index = tuple(map(int, np.unravel_index(wrong.argmax(), wrong.shape)))
        what = ("whole token ids from 0", "a mask of 0 and 1", "segments of 0 and 1")[index[1]]
        raise UserError(f"{where}, key 'text_bert', row {index[0]}: {tokens[index]:g} at {index}; expected {what}")
