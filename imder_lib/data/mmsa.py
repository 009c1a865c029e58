"""Files in the MMSA schema: {train, valid, test} -> text, audio, vision (N, T, D), regression_labels (N,), id, ...

A file with other modalities has a key "modalities" beside the splits, the list of their keys.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from imder_lib.data.schema import SPLITS, Split
from imder_lib.errors import UserError

MODALITIES = ("text", "audio", "vision")
LABELS = ("regression_labels", "classification_labels")  # the second is read only if the first is absent
KNOWN = {*MODALITIES, *LABELS, "id", "raw_text", "text_bert", "annotations", "audio_lengths", "vision_lengths"}
KNOWN |= {"regression_labels_T", "regression_labels_A", "regression_labels_V"}
SIZES = {  # of the published files
    "mosi": {"train": 1284, "valid": 229, "test": 686},
    "mosei": {"train": 16326, "valid": 1871, "test": 4659},
}


def check_content(content: Any, path: Path) -> dict[str, Split]:
    """Check the content of a file and return its splits.

    Raises:
        UserError: names split, key and row of the first violation.
    """
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a dict with {SPLITS}, got {type(content).__name__}")
    if absent := [s for s in SPLITS if s not in content]:
        raise UserError(f"{path}: split {absent[0]!r} is missing; found {[str(k) for k in content]}")
    modalities = _modalities(content.get("modalities", MODALITIES), path)
    splits = {name: _split(content[name], f"{path}: split {name!r}", modalities) for name in SPLITS}
    seen: dict[str, str] = {}
    for name, split in splits.items():
        for i, sample in enumerate(split.ids):
            if sample in seen:
                where = f"{path}: split {name!r}, key 'id', row {i}"
                raise UserError(f"{where}: {sample!r} is in split {seen[sample]!r} already; ids must be unique")
            seen[sample] = name
        for m, x in split.features.items():
            want = splits["train"].features[m].shape[1:]
            if x.shape[1:] != want:
                raise UserError(f"{path}: split {name!r}, key {m!r}: (T, D) is {x.shape[1:]}, in 'train' it is {want}")
    return splits


def _modalities(names: Any, path: Path) -> tuple[str, ...]:
    try:
        found = tuple(str(m) for m in np.asarray(names, dtype=object).reshape(-1))
    except ValueError:
        found = ()
    if len(found) < 2 or len(set(found)) < len(found) or set(found) & (KNOWN - set(MODALITIES)):
        raise UserError(f"{path}, key 'modalities': expected two or more distinct feature keys, got {names!r:.100}")
    return found


def _split(part: Any, where: str, modalities: tuple[str, ...]) -> Split:
    if not isinstance(part, dict):
        raise UserError(f"{where} must be a dict of arrays, got {type(part).__name__}")
    target = LABELS[1] if LABELS[1] in part and LABELS[0] not in part else LABELS[0]
    if absent := [k for k in (*modalities, target, "id") if k not in part]:
        raise UserError(f"{where}: key {absent[0]!r} is missing; found {sorted(map(str, part))}")
    known = KNOWN | set(modalities) | {f"{m}_lengths" for m in modalities}
    if unknown := sorted(str(k) for k in part if k not in known):
        warnings.warn(f"{where}: unknown keys are left out: {unknown}", stacklevel=2)
    ids, texts = (_strings(part.get(key, []), f"{where}, key {key!r}") for key in ("id", "raw_text"))
    if not ids:
        raise UserError(f"{where} is empty: expected at least one sample")
    features = {m: _features(part[m], f"{where}, key {m!r}", len(ids), m) for m in modalities}
    labels = _labels(part[target], f"{where}, key {target!r}", len(ids), target == LABELS[1])
    tokens = _tokens(part.get("text_bert"), where, len(ids))
    _check_axes(features, tokens, where)
    lengths = _lengths(part, features, tokens, where)
    steps = features[modalities[0]].shape[1]  # the common T is that of text, in MMSA files
    return Split(features, labels, ids, steps, texts=texts, lengths=lengths, text_bert=tokens)


def _strings(values: Any, where: str) -> list[str]:
    """One string a sample; an id of several parts is joined by "/"."""
    try:
        return ["/".join(map(str, np.asarray(v).reshape(-1))) for v in values]
    except (TypeError, ValueError):
        raise UserError(f"{where}: expected a list of strings, got {values!r:.100}") from None


def _numbers(value: Any, where: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise UserError(f"{where}: not an array: {error!s:.120}") from None
    if array.dtype.kind not in "fiu":
        raise UserError(f"{where}: dtype {array.dtype}, expected numbers")
    return array


def _check_finite(x: np.ndarray, where: str) -> None:
    """Every number must be finite as float32, which the model computes in."""
    with np.errstate(over="ignore"):
        if np.isfinite(np.float32([x.min(), x.max()])).all():  # NaN propagates; no copy of a large array
            return
        wrong = ~np.isfinite(x.astype(np.float32, copy=False))
    index = tuple(int(i) for i in np.unravel_index(wrong.argmax(), x.shape))
    raise UserError(f"{where}, row {index[0]}: {x[index]} at {index}; every number must be finite (in float32)")


def _features(value: Any, where: str, n: int, modality: str) -> np.ndarray:
    x = _numbers(value, where)
    if x.ndim != 3 or 0 in x.shape[1:]:
        raise UserError(f"{where}: shape {x.shape}, expected (N, T, D)")
    if len(x) != n:
        raise UserError(f"{where}: {len(x)} rows, but there are {n} ids; expected (N, T, D) with N = {n}")
    if modality == "audio" and (silent := np.isneginf(x)).any():  # COVAREP writes log(0); the release does the same
        x = np.where(silent, np.float32(0), x)
    _check_finite(x, where)
    return x


def _labels(value: Any, where: str, n: int, classes: bool) -> np.ndarray:
    """(N,): float32 numbers, or int64 classes from 0."""
    y = _numbers(value, where)
    if y.size != n or y.ndim > 2:
        raise UserError(f"{where}: shape {y.shape}, expected ({n},)")
    y = y.reshape(-1)
    _check_finite(y, where)
    y = y.astype(np.float32)
    if not classes:
        return y
    if wrong := np.flatnonzero((y < 0) | (y != np.round(y))).tolist():
        raise UserError(f"{where}, row {wrong[0]}: {y[wrong[0]]:g}; classes are whole numbers from 0")
    return y.astype(np.int64)


def _tokens(value: Any, where: str, n: int) -> np.ndarray | None:
    """text_bert (N, 3, T): ids, mask, segments; None if absent or unusable."""
    if value is None:
        return None
    try:
        tokens = np.asarray(value)
    except ValueError:  # lists of unequal length
        tokens = np.empty(0, dtype=object)
    if tokens.dtype.kind not in "fiu" or tokens.ndim != 3 or tokens.shape[:2] != (n, 3):
        got = f"{tokens.dtype} {tokens.shape}"
        warnings.warn(f"{where}: text_bert is left out: it is {got}, expected numbers ({n}, 3, T)", stacklevel=3)
        return None
    return tokens


def _lengths(part: dict, features: dict[str, np.ndarray], tokens: np.ndarray | None, where: str) -> dict:
    """Valid steps of each sample: MODALITY_lengths; for text the last step of BERT's mask.

    A modality without lengths takes those of text if it has the same number of steps, as in an aligned file.
    """
    text_steps = features["text"].shape[1] if "text" in features else None
    of_text = part.get("text_lengths")
    if of_text is None and tokens is not None and tokens.shape[2] == text_steps:
        of_text = np.where(tokens[:, 1] > 0, np.arange(1, text_steps + 1), 0).max(axis=1)
    out = {}
    for m, x in features.items():
        n, T = x.shape[:2]
        key = f"{m}_lengths"
        if key not in part and (of_text is None or text_steps != T):
            continue
        length = _numbers(part.get(key, of_text), f"{where}, key {key!r}").reshape(-1)
        if len(length) != n:
            raise UserError(f"{where}, key {key!r}: {len(length)} lengths for {n} samples")
        _check_finite(length, f"{where}, key {key!r}")
        if wrong := int(((length < 1) | (length > T)).sum()):
            warnings.warn(f"{where}: {wrong} lengths of {m} are outside 1..{T} and are clipped", stacklevel=3)
        out[m] = np.clip(length, 1, T).astype(np.int64)
    return out


def _check_axes(features: dict[str, np.ndarray], tokens: np.ndarray | None, where: str) -> None:
    """Detect (N, D, T) in place of (N, T, D): D equals the T of the other modalities."""
    shapes = {m: x.shape for m, x in features.items()}
    for m, (_, T, D) in shapes.items():
        others = {s[1] for k, s in shapes.items() if k != m}
        if T not in others and others == {D} and D > 1:
            raise UserError(f"{where}, key {m!r}: shape {shapes[m]} looks like (N, D, T), as the others have T = {D}")
    widths, steps = {s[2] for s in shapes.values()}, {s[1] for s in shapes.values()}
    if len(widths) == 1 and len(steps) == len(shapes) and widths != {1}:
        raise UserError(f"{where}: shapes {shapes} look like (N, D, T); expected (N, T, D): swap the last two axes")
    if tokens is not None and "text" in shapes:
        T = tokens.shape[2]
        if shapes["text"][1] != T and shapes["text"][2] == T:
            raise UserError(f"{where}, key 'text': shape {shapes['text']} looks like (N, D, T), text_bert has T = {T}")
