"""Files in the MMSA schema: {train, valid, test} -> text, audio, vision (N, T, D), regression_labels, id, ...

A file with other modalities names them itself: a key "modalities" beside the splits, a list of their keys.

Every check reads a large array in pieces and leaves it where it is.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from imder_lib.data.pickles import pieces
from imder_lib.data.schema import SPLITS, Split, common_steps
from imder_lib.errors import UserError

KNOWN = {"text", "audio", "vision", "regression_labels", "id", "raw_text", "text_bert", "annotations"}
KNOWN |= {"classification_labels", "audio_lengths", "vision_lengths", "regression_labels_T", "regression_labels_A"}
KNOWN |= {"regression_labels_V"}
LABELS = ("regression_labels", "classification_labels")  # the second one where there is no first
MODALITIES = ("text", "audio", "vision")


def check_content(content: Any, path: Path) -> dict[str, Split]:
    """The splits of a file's content after every check.

    Raises:
        UserError: names split, key and row of the first thing that does not fit.
    """
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a dict with {SPLITS}, got {type(content).__name__}")
    if absent := [s for s in SPLITS if s not in content]:
        raise UserError(f"{path}: split {absent[0]!r} is missing; found {[str(k) for k in content]}")
    modalities = _modalities(content.get("modalities", MODALITIES), path)
    known = KNOWN | set(modalities) | {f"{m}_lengths" for m in modalities}
    splits: dict[str, Split] = {}
    seen: dict[str, str] = {}
    for name in SPLITS:
        where = f"{path}: split {name!r}"
        part = content[name]
        if not isinstance(part, dict):
            raise UserError(f"{where} must be a dict of arrays, got {type(part).__name__}")
        target = LABELS[0] if LABELS[0] in part or LABELS[1] not in part else LABELS[1]
        if absent := [k for k in (*modalities, target, "id") if k not in part]:
            raise UserError(f"{where}: key {absent[0]!r} is missing; found {sorted(map(str, part))}")
        if unknown := sorted(str(k) for k in part if k not in known):
            warnings.warn(f"{where}: unknown keys are left out: {unknown}", stacklevel=2)
        ids = [_id(i) for i in part["id"]]
        if not ids:
            raise UserError(f"{where} is empty: expected at least one sample")
        for i, sample in enumerate(ids):
            if sample in seen:
                raise UserError(f"{where}, key 'id', row {i}: {sample!r} stands in split {seen[sample]!r} already")
            seen[sample] = name
        features = {m: _features(part[m], f"{where}, key {m!r}", len(ids), m) for m in modalities}
        labels = _labels(part[target], f"{where}, key {target!r}", len(ids), target == LABELS[1])
        steps = {m: x.shape[1] for m, x in features.items()}
        _axes(features, part.get("text_bert"), where)
        texts = [str(t) for t in part.get("raw_text", [])]
        tokens = _tokens(part.get("text_bert"), where, len(ids))
        lengths = _lengths(part, features, tokens, where)
        splits[name] = Split(features, labels, ids, common_steps(steps), texts=texts, lengths=lengths, text_bert=tokens)
    first = splits["train"].features
    for name, s in splits.items():
        for m, x in s.features.items():
            if x.shape[1:] != first[m].shape[1:]:
                want = first[m].shape[1:]
                raise UserError(f"{path}: split {name!r}, key {m!r}: (T, D) is {x.shape[1:]}, in 'train' it is {want}")
    return splits


def _modalities(names: Any, path: Path) -> tuple[str, ...]:
    try:
        found = tuple(str(m) for m in np.asarray(names, dtype=object).reshape(-1))
    except ValueError:
        found = ()
    if len(found) < 2 or len(set(found)) < len(found) or set(found) & (KNOWN - set(MODALITIES)):
        raise UserError(f"{path}, key 'modalities': expected two or more distinct keys of features, got {names!r:.100}")
    return found


def _id(value: Any) -> str:
    value = np.asarray(value).reshape(-1)
    return str(value[0]) if value.size == 1 else "/".join(map(str, value))


def _numbers(value: Any, where: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise UserError(f"{where}: no array: {error!s:.120}") from None
    if array.dtype.kind not in "fiu":
        raise UserError(f"{where}: dtype {array.dtype}, expected numbers")
    return array


def _finite(x: np.ndarray, where: str, start: int = 0) -> None:
    if not np.isfinite(x).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(x))[0])
        row, rest = start + index[0], index[1:]
        raise UserError(f"{where}, row {row}: {x[index]} at {(row, *rest)}; every number must be finite")


def _features(value: Any, where: str, n: int, modality: str) -> np.ndarray:
    x = _numbers(value, where)
    if x.ndim != 3 or 0 in x.shape[1:]:
        raise UserError(f"{where}: shape {x.shape}, expected (N, T, D)")
    if len(x) != n:
        raise UserError(f"{where}: {len(x)} rows, but there are {n} ids; expected (N, T, D) with N = {n}")
    for start, piece in pieces(x):
        with np.errstate(over="ignore"):  # what float32 cannot hold is not finite for the model
            piece = piece.astype(np.float32)
        if modality == "audio" and np.isneginf(piece).any():  # COVAREP writes log(0); the release does the same
            if not x.flags.writeable or x.dtype != np.float32:
                x = x.astype(np.float32)
            x[start : start + len(piece)] = piece = np.where(np.isneginf(piece), np.float32(0), piece)
        _finite(piece, where, start)
    return x


def _labels(value: Any, where: str, n: int, classes: bool) -> np.ndarray:
    """(N,): float32 numbers, or int64 classes from 0."""
    y = _numbers(value, where)
    if y.size != n or y.ndim > 2:
        raise UserError(f"{where}: shape {y.shape}, expected ({n},)")
    y = y.reshape(-1).astype(np.float32)
    _finite(y, where)
    if not classes:
        return y
    if wrong := np.flatnonzero((y < 0) | (y != np.round(y))).tolist():
        raise UserError(f"{where}, row {wrong[0]}: {y[wrong[0]]:g}; classes are whole numbers from 0")
    return y.astype(np.int64)


def _tokens(value: Any, where: str, n: int) -> np.ndarray | None:
    """text_bert (N, 3, T): ids, mask, segments; None where there is none that can be used."""
    if value is None:
        return None
    tokens = np.asarray(value)
    if tokens.dtype.kind not in "fiu" or tokens.ndim != 3 or tokens.shape[:2] != (n, 3):
        got = f"{tokens.dtype} {tokens.shape}"
        warnings.warn(f"{where}: text_bert is left out: it is {got}, expected numbers ({n}, 3, T)", stacklevel=3)
        return None
    return tokens


def _lengths(part: dict, features: dict[str, np.ndarray], tokens: np.ndarray | None, where: str) -> dict:
    """How many steps of each sample count: <modality>_lengths; for text the last step of BERT's mask.

    A modality with text's number of steps and no lengths of its own takes text's: in an aligned file they go together.
    """
    n, out = len(next(iter(features.values()))), {}
    for m, x in features.items():
        if f"{m}_lengths" in part:
            out[m] = _numbers(part[f"{m}_lengths"], f"{where}, key '{m}_lengths'").reshape(-1)
        elif m == "text" and tokens is not None and tokens.shape[2] == x.shape[1]:
            out[m] = np.where(tokens[:, 1] > 0, np.arange(1, x.shape[1] + 1), 0).max(axis=1)
    for m, x in features.items():
        if m not in out and "text" in out and x.shape[1] == features["text"].shape[1]:
            out[m] = out["text"]
    for m, length in out.items():
        if len(length) != n:
            raise UserError(f"{where}, key '{m}_lengths': {len(length)} lengths for {n} samples")
        T = features[m].shape[1]
        if wrong := int(((length < 1) | (length > T)).sum()):
            warnings.warn(f"{where}: {wrong} lengths of {m} are outside 1..{T} and are clipped", stacklevel=3)
        out[m] = np.clip(length, 1, T).astype(np.int64)
    return out


def _axes(features: dict[str, np.ndarray], text_bert: Any, where: str) -> None:
    """(N, D, T) in place of (N, T, D) leaves a trace: the T of the others stands where D should be."""
    shapes = {m: x.shape for m, x in features.items()}
    for m, (_, T, D) in shapes.items():
        others = {s[1] for k, s in shapes.items() if k != m}
        if T not in others and others == {D} and D > 1:
            raise UserError(f"{where}, key {m!r}: shape {shapes[m]} looks like (N, D, T), as the others have T = {D}")
    widths, steps = {s[2] for s in shapes.values()}, {s[1] for s in shapes.values()}
    if len(widths) == 1 and len(steps) == len(shapes) and widths != {1}:
        raise UserError(f"{where}: shapes {shapes} look like (N, D, T); expected (N, T, D): swap the last two axes")
    if text_bert is not None and np.ndim(text_bert) == 3 and "text" in shapes:
        T = np.shape(text_bert)[2]
        if shapes["text"][1] != T and shapes["text"][2] == T:
            raise UserError(f"{where}, key 'text': shape {shapes['text']} looks like (N, D, T), text_bert has T = {T}")
