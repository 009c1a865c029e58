"""Files in the MMSA schema: {train, valid, test} -> text, audio, vision (N, T, D), regression_labels (N,), id, ...

A file with other modalities has a key "modalities" beside the splits, the list of their keys.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from imder_lib.config import check_names
from imder_lib.data.checks import check_available, check_numbers, check_tokens
from imder_lib.data.schema import SPLITS, Split
from imder_lib.errors import UserError, did_you_mean, unknown

MODALITIES = ("text", "audio", "vision")
LABELS = ("regression_labels", "classification_labels")  # the second is read only if the first is absent
KNOWN = {*MODALITIES, *LABELS, "id", "raw_text", "text_bert", "annotations", "audio_lengths", "vision_lengths"}
KNOWN |= {"available", "regression_labels_T", "regression_labels_A", "regression_labels_V"}
OTHER_NAMES = ("val", "dev", "validation")  # of split valid
SIZES = {  # of the published files
    "mosi": {"train": 1284, "valid": 229, "test": 686},
    "mosei": {"train": 16326, "valid": 1871, "test": 4659},
}


def check_content(content: Any, path: Path, whole: bool = True) -> tuple[dict[str, Split], list[str]]:
    """Check the content of a file; return its splits and notes on what was read under another name.

    A UserError names split, key and row of the first violation. Unless ``whole``, features and text_bert are checked by
    shape and type only.
    """
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a dict with {SPLITS}, got {type(content).__name__}")
    other, notes = [k for k in OTHER_NAMES if k in content], []
    if "valid" not in content and len(other) == 1:
        content, notes = content | {"valid": content[other[0]]}, [f"split {other[0]!r} of the file is read as 'valid'"]
    if absent := [s for s in SPLITS if s not in content]:
        raise unknown(f"{path}: there is no split", absent[0], map(str, content), "found")
    if wrong := [(s, type(content[s]).__name__) for s in SPLITS if not isinstance(content[s], dict)]:
        raise UserError(f"{path}: split {wrong[0][0]!r} must be a dict of arrays, got {wrong[0][1]}")
    if "available" in content:
        raise UserError(f"{path}: key 'available' stands beside the splits, expected one in each split")
    named, where = content.get("modalities", MODALITIES), f"{path}, key 'modalities'"
    modalities = _strings(named, where)
    if len(modalities) < 2 or len(set(modalities)) < len(modalities) or set(modalities) & (KNOWN - set(MODALITIES)):
        raise UserError(f"{where}: expected two or more distinct feature keys, got {named!r:.100}")
    check_names(modalities, where)
    # one kind of labels for the whole file: classes only if no split has the other key
    numbers, classes = (any(key in content[s] for s in SPLITS) for key in LABELS)
    target = LABELS[1] if classes and not numbers else LABELS[0]
    splits = {name: _split(content[name], f"{path}: split {name!r}", modalities, target, whole) for name in SPLITS}
    seen: dict[str, str] = {}
    for name, split in splits.items():
        where = f"{path}: split {name!r}"
        for i, sample in enumerate(split.ids):
            if sample in seen:
                what = f"{sample!r} is in split {seen[sample]!r} already; ids must be unique"
                raise UserError(f"{where}, key 'id', row {i}: {what}")
            seen[sample] = name
        for m, x in split.features.items():
            want = splits["train"].features[m].shape[1:]
            if x.shape[1:] != want:
                raise UserError(f"{where}, key {m!r}: (T, D) is {x.shape[1:]}, in 'train' it is {want}")
    if target == LABELS[1]:
        _check_classes(splits, path)
    return splits, notes


def _check_classes(splits: dict[str, Split], path: Path) -> None:
    rows, trained = sum(map(len, splits.values())), np.unique(splits["train"].labels)
    if len(trained) < 2:
        raise UserError(f"{path}: split 'train', key {LABELS[1]!r}: only class {trained[0]}, expected two or more")
    for name, s in splits.items():
        if len(odd := np.flatnonzero((s.labels >= rows) | ~np.isin(s.labels, trained))):
            i = max(odd, key=lambda i: s.labels[i] >= rows)  # the first too large one, or the first
            what = f"{path}: split {name!r}, key {LABELS[1]!r}, row {i}: class {s.labels[i]}"
            if s.labels[i] >= rows:
                raise UserError(f"{what} in a file of {rows} samples; number the classes from 0 without gaps")
            warnings.warn(f"{what} is in no row of 'train' and cannot be learned; {len(odd)} such rows", stacklevel=3)


def _split(part: dict, where: str, modalities: list[str], target: str, whole: bool) -> Split:
    known = KNOWN | set(modalities) | {f"{m}_lengths" for m in modalities}
    others = sorted(str(k) for k in part if k not in known)
    if absent := [k for k in (*modalities, target, "id") if k not in part]:
        found = f"all splits need it: add it; found {sorted(map(str, part))}"
        raise UserError(f"{where}: key {absent[0]!r} is missing: {did_you_mean(absent[0], others)}{found}")
    if others:
        warnings.warn(f"{where}: unknown keys are left out: {others}", stacklevel=2)
    ids, texts = (_strings(part.get(key, []), f"{where}, key {key!r}") for key in ("id", "raw_text"))
    n, features = len(ids), {}
    if not n:
        raise UserError(f"{where} is empty: expected at least one sample")
    if texts and len(texts) != n:
        raise UserError(f"{where}, key 'raw_text': {len(texts)} texts for {n} ids: give one for each, or none")
    available = check_available(part.get("available"), f"{where}, key 'available'", n, modalities)
    has = {m: np.ones(n, bool) if available is None else available[:, i] for i, m in enumerate(modalities)}
    for m in modalities:
        place = f"{where}, key {m!r}"
        x = _numbers(part[m], place)
        if x.ndim != 3 or 0 in x.shape[1:]:
            raise UserError(f"{place}: shape {x.shape}, expected (N, T, D)")
        if len(x) != n:
            raise UserError(f"{place}: {len(x)} rows, but there are {n} ids; expected (N, T, D) with N = {n}")
        if whole and not has[m].all():
            x = np.where(has[m][:, None, None], x, x.dtype.type(0))  # what stands there is not data, and may be NaN
        if whole and m == "audio" and np.isneginf(x).any():
            x = np.where(np.isneginf(x), np.float32(0), x)  # COVAREP writes log(0); the release does the same
        if whole:
            check_numbers(x, place)
        features[m] = x
    labels = _labels(part[target], f"{where}, key {target!r}", n, target == LABELS[1])
    tokens = _tokens(part.get("text_bert"), where, n, whole, has.get("text"))
    _check_axes(features, tokens, where)
    lengths = _lengths(part, features, tokens, where, has)
    steps = features[modalities[0]].shape[1]  # the common T is that of text, in MMSA files
    return Split(features, labels, ids, steps, None, texts, lengths, tokens, available)


def _strings(values: Any, where: str) -> list[str]:
    """One string a sample; an id of several parts is joined by "/"."""
    try:
        if isinstance(values, (str, bytes, dict)):  # their iteration gives characters or keys
            raise TypeError
        return [str(v) if isinstance(v, str) else "/".join(map(str, np.asarray(v).reshape(-1))) for v in values]
    except (TypeError, ValueError):
        raise UserError(f"{where}: expected a list of strings, got {values!r:.100}") from None


def _numbers(value: Any, where: str) -> np.ndarray:
    """An array of numbers, a memory-mapped one as it is; object arrays of equal arrays are stacked."""
    nested = isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 1
    try:
        array = np.asanyarray(list(value) if nested else value)
    except ValueError:
        shapes = [_shape(v) for v in value]
        i = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), 0)
        raise UserError(f"{where}, row {i}: shape {shapes[i]}, row 0 has {shapes[0]}: pad all to one shape") from None
    if array.dtype.kind not in "fiu":
        raise UserError(f"{where}: dtype {array.dtype}, expected numbers such as float32")
    return array


def _shape(value: Any) -> object:
    try:
        return np.shape(value)
    except ValueError:
        return "unequal"


def _labels(value: Any, where: str, n: int, classes: bool) -> np.ndarray:
    """(N,): float32 numbers, or int64 classes from 0."""
    y = _numbers(value, where)
    if y.size != n or y.ndim > 2:
        raise UserError(f"{where}: shape {y.shape}, expected ({n},)")
    y = y.reshape(-1)
    check_numbers(y, where)
    y = y.astype(np.float32)
    if not classes:
        return y
    if wrong := np.flatnonzero((y < 0) | (y != np.round(y))).tolist():
        raise UserError(f"{where}, row {wrong[0]}: {y[wrong[0]]:g}; classes are whole numbers from 0")
    return y.astype(np.int64)


def _tokens(value: Any, where: str, n: int, whole: bool, has: np.ndarray | None) -> np.ndarray | None:
    """text_bert (N, 3, T): ids, mask, segments, 0 without text (``has``: (N,)); None if absent or unusable."""
    if value is None:
        return None
    try:
        tokens = _numbers(value, f"{where}, key 'text_bert'")
        if tokens.ndim != 3 or tokens.shape[:2] != (n, 3):
            raise UserError(f"{where}, key 'text_bert': {tokens.dtype} {tokens.shape}")
    except UserError as error:
        warnings.warn(f"{error}; text_bert is left out, expected numbers ({n}, 3, T)", stacklevel=3)
        return None
    if whole and has is not None and not has.all():
        tokens = np.where(has[:, None, None], tokens, tokens.dtype.type(0))
    if whole:
        check_tokens(tokens, where)
    return tokens


def _lengths(
    part: dict,
    features: dict[str, np.ndarray],
    tokens: np.ndarray | None,
    where: str,
    has: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """Valid steps of each sample: MODALITY_lengths; for text the last step of BERT's mask.

    A modality without lengths takes those of text if it has the same number of steps, as in an aligned file. What a
    sample does not have, ``has`` (modality -> (N,)), gives no length: all T steps then.
    """
    text_steps = features["text"].shape[1] if "text" in features else None
    of_text = part.get("text_lengths")
    if of_text is None and tokens is not None and tokens.shape[2] == text_steps:
        of_text = np.where(tokens[:, 1] > 0, np.arange(1, text_steps + 1), 0).max(axis=1)
    out = {}
    for m, x in features.items():
        n, T, _ = x.shape
        key = f"{m}_lengths"
        place = f"{where}, key {key!r}"
        if key not in part and (of_text is None or text_steps != T):
            continue
        length = _numbers(part.get(key, of_text), place).reshape(-1)
        if len(length) != n:
            raise UserError(f"{place}: {len(length)} lengths for {n} samples")
        length = np.where(has[m] if key in part else has[m] & has["text"], length, T)
        check_numbers(length, place)
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
        if m == "text" and tokens is not None and tokens.shape[2] == D != T:
            raise UserError(f"{where}, key 'text': shape {shapes[m]} looks like (N, D, T), text_bert has T = {D}")
    widths, steps = {s[2] for s in shapes.values()}, {s[1] for s in shapes.values()}
    if len(widths) == 1 and len(steps) == len(shapes) and widths != {1}:
        raise UserError(f"{where}: shapes {shapes} look like (N, D, T); expected (N, T, D): swap the last two axes")
