"""Checks of names, numbers and tokens, and what describe() tells of the contents of a file."""

import hashlib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from imder_lib.errors import UserError

if TYPE_CHECKING:
    from imder_lib.data.schema import Split

LIMIT = np.float64(1e15)  # sums of squares of such numbers, over frames and channels, still fit in float32
UNUSUAL = 1e6  # times the median over training rows of the largest number in a row
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
    raise UserError(
        f"{where}, row {index[0]}: {x[index]} at {index}; every number must {what}: correct it or leave the row out"
    )


def check_tokens(tokens: np.ndarray, where: str) -> None:
    """A UserError with the row of the first number in text_bert (N, 3, T) that is no token id, mask or segment."""
    wrong = ~((tokens >= 0) & (tokens < BELOW) & (tokens == np.floor(tokens)))
    if wrong.any():
        index = tuple(map(int, np.unravel_index(wrong.argmax(), wrong.shape)))
        what = ("whole token ids from 0", "a mask of 0 and 1", "segments of 0 and 1")[index[1]]
        raise UserError(f"{where}, key 'text_bert', row {index[0]}: {tokens[index]:g} at {index}; expected {what}")


def contents(splits: Mapping[str, "Split"], path: Path) -> list[str]:
    """One line for each oddity that training can stand. Reads all features.

    Raises:
        UserError: a number that training cannot stand.
    """
    lines, usual = [], {}
    seen: dict[bytes, str] = {}  # hash of a row's features -> the first split that has it
    for name, split in splits.items():
        if split.text_bert is not None:
            check_tokens(split.text_bert, f"{path}: split {name!r}")
        hashes = [hashlib.blake2b(digest_size=16) for _ in split.ids]
        for m, x in split.features.items():
            where = f"split {name!r}, key {m!r}"
            check_numbers(x, f"{path}: {where}")
            reach = np.maximum(x.max(axis=(1, 2)), -x.min(axis=(1, 2)).astype(np.float64))
            if zero := int((reach == 0).sum()):
                lines.append(f"{where}: {zero} of {len(x)} rows are all zero")
            if name == "train":
                usual[m] = np.median(reach[reach > 0]) if reach.any() else np.inf
                if constant := int((x.min(axis=(0, 1)) == x.max(axis=(0, 1))).sum()):
                    lines.append(f"{where}: {constant} of {x.shape[2]} columns are constant")
            if len(rows := np.flatnonzero(reach > UNUSUAL * usual[m])):
                much = f"reaches {reach[rows[0]]:.3g}, in a usual row {usual[m]:.3g}"
                lines.append(f"{where}, row {rows[0]}: {much}; {len(rows)} such rows")
            for i, h in enumerate(hashes):
                h.update(np.ascontiguousarray(x[i], dtype=np.float32))
        found = [h.digest() for h in hashes]
        if same := [i for i, h in enumerate(found) if h in seen]:
            first = f"the first is row {same[0]}, id {split.ids[same[0]]!r}, as in {seen[found[same[0]]]!r}"
            lines.append(f"split {name!r}: {len(same)} rows have the features of a row in another split; {first}")
        seen = dict.fromkeys(found, name) | seen
    return lines
