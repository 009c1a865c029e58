"""Checks of numbers, tokens and names, and what `imder check` tells about the contents of a file."""

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
VOCABULARY = 1 << 20  # no published vocabulary has more tokens


def did_you_mean(name: str, names: Iterable[object]) -> str:
    """A hint for the end of a message: the nearest of ``names``, or nothing."""
    near = get_close_matches(name, list(map(str, names)), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def check_names(names: Iterable[str], where: str) -> None:
    """Names of modalities are parts of patterns, of parameter names and of file names.

    Raises:
        UserError: names the ones that cannot be used.
    """
    for m in names:
        if not m or not m.isprintable() or set(m) & set(".+</\\") or len(m) > 60 or m.endswith("_lengths"):
            rule = "expected 1 to 60 printable characters without '.', '+', '<', '/', '\\' or the ending '_lengths'"
            raise UserError(f"{where}: a modality cannot have the name {m!r:.80}: {rule}")
        if hasattr(nn.ModuleDict, m) or m == "training":
            raise UserError(f"{where}: a modality cannot have the name {m!r}, which PyTorch uses: choose another")


def check_numbers(x: np.ndarray, where: str) -> None:
    """Every number must be finite and at most LIMIT, beyond which training in float32 overflows.

    Raises:
        UserError: names the row of the first other number.
    """
    if x.min() >= -LIMIT and x.max() <= LIMIT:  # false for NaN; no copy of a large array
        return
    index = tuple(int(i) for i in np.unravel_index((~((x >= -LIMIT) & (x <= LIMIT))).argmax(), x.shape))
    what = "must be finite" if not np.isfinite(x[index]) else f"must lie within +-{LIMIT:g}: training overflows"
    raise UserError(f"{where}, row {index[0]}: {x[index]} at {index}; every number {what}")


def check_tokens(tokens: np.ndarray, where: str) -> None:
    """text_bert (N, 3, T): whole ids from 0, mask and segments of 0 and 1.

    Raises:
        UserError: names the row of the first other number.
    """
    below = np.array([VOCABULARY, 2, 2])[:, None]
    wrong = ~((tokens >= 0) & (tokens < below) & (tokens == np.floor(tokens)))
    if wrong.any():
        index = tuple(int(i) for i in np.unravel_index(wrong.argmax(), wrong.shape))
        what = ("whole token ids from 0", "a mask of 0 and 1", "segments of 0 and 1")[index[1]]
        raise UserError(f"{where}, key 'text_bert', row {index[0]}: {tokens[index]:g} at {index}; expected {what}")


def contents(splits: Mapping[str, "Split"], path: Path) -> list[str]:
    """One line for each oddity that training can stand; reads all features.

    Raises:
        UserError: a number that training cannot stand.
    """
    lines, usual = [], {}
    for name, split in splits.items():
        if split.text_bert is not None:
            check_tokens(split.text_bert, f"{path}: split {name!r}")
        for m, x in split.features.items():
            check_numbers(x, f"{path}: split {name!r}, key {m!r}")
            reach = np.maximum(x.max(axis=(1, 2)), -x.min(axis=(1, 2)).astype(np.float64))
            if zero := int((reach == 0).sum()):
                lines.append(f"split {name!r}, key {m!r}: {zero} of {len(x)} rows are all zero")
            if name == "train":
                usual[m] = np.median(reach[reach > 0]) if reach.any() else np.inf
                if constant := int((x.min(axis=(0, 1)) == x.max(axis=(0, 1))).sum()):
                    lines.append(f"split {name!r}, key {m!r}: {constant} of {x.shape[2]} columns are constant")
            if len(rows := np.flatnonzero(reach > UNUSUAL * usual[m])):
                much = f"reaches {reach[rows[0]]:.3g}, in a usual row {usual[m]:.3g}"
                lines.append(f"split {name!r}, key {m!r}, row {rows[0]}: {much}; {len(rows)} such rows")
    return lines + _repeated(splits)


def _repeated(splits: Mapping[str, "Split"]) -> list[str]:
    """Rows of a split whose features are those of a row in an earlier split."""
    seen: dict[bytes, str] = {}
    lines = []
    for name, split in splits.items():
        hashes = []
        for i in range(len(split)):
            row = hashlib.blake2b(digest_size=16)
            for x in split.features.values():
                row.update(np.ascontiguousarray(x[i], dtype=np.float32))
            hashes.append(row.digest())
        for other in splits:
            same = [i for i, h in enumerate(hashes) if seen.get(h) == other]
            if same:
                first = f"the first is row {same[0]}, id {split.ids[same[0]]!r}"
                lines.append(f"split {name!r}: {len(same)} rows have the features of a row in {other!r}; {first}")
        seen = dict.fromkeys(hashes, name) | seen
    return lines
