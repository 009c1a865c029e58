"""Reading files in the MMSA schema: {train, valid, test} -> text, audio, vision (N, T, D), regression_labels, id, ...

Pickles go through an allow-list: NumPy arrays and plain containers, nothing that could run code.
"""

import hashlib
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from imder_lib.data.schema import SPLITS, Split, common_steps
from imder_lib.errors import UserError

KNOWN = {"text", "audio", "vision", "regression_labels", "id", "raw_text", "text_bert", "annotations"}
KNOWN |= {"classification_labels", "audio_lengths", "vision_lengths", "regression_labels_T", "regression_labels_A"}
KNOWN |= {"regression_labels_V"}
MODALITIES = ("text", "audio", "vision")

_ALLOWED = {
    ("builtins", "set"), ("builtins", "frozenset"), ("builtins", "bytearray"), ("builtins", "complex"),
    ("collections", "OrderedDict"), ("_codecs", "encode"), ("numpy", "ndarray"), ("numpy", "dtype"),
}  # fmt: skip
_ALLOWED |= {
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
}


class _AllowList(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise UserError(f"it holds {module}.{name}: only NumPy arrays and plain containers are read")
        return super().find_class(module, name)


def read_pickle(path: Path) -> Any:
    """A pickle's content, read through the allow-list; nothing in it can run."""
    try:
        with path.open("rb") as file:
            return _AllowList(file, encoding="latin1").load()  # latin1: files written by Python 2
    except UserError as error:
        raise UserError(f"{path} is refused: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # a broken pickle can raise nearly anything
        raise UserError(f"{path} is truncated or no pickle: {error!s:.120} ({type(error).__name__})") from None


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_content(content: Any, path: Path, modalities: tuple[str, ...] = MODALITIES) -> dict[str, Split]:
    """The splits of a file's content after every check.

    Raises:
        UserError: names split, key and row of the first thing that does not fit.
    """
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a dict with {SPLITS}, got {type(content).__name__}")
    if absent := [s for s in SPLITS if s not in content]:
        raise UserError(f"{path}: split {absent[0]!r} is missing; found {[str(k) for k in content]}")
    splits: dict[str, Split] = {}
    seen: dict[str, str] = {}
    for name in SPLITS:
        where = f"{path}: split {name!r}"
        part = content[name]
        if not isinstance(part, dict):
            raise UserError(f"{where} must be a dict of arrays, got {type(part).__name__}")
        if absent := [k for k in (*modalities, "regression_labels", "id") if k not in part]:
            raise UserError(f"{where}: key {absent[0]!r} is missing; found {sorted(map(str, part))}")
        if unknown := sorted(str(k) for k in part if k not in KNOWN and k not in modalities):
            warnings.warn(f"{where}: unknown keys are left out: {unknown}", stacklevel=2)
        ids = [_id(i) for i in part["id"]]
        if not ids:
            raise UserError(f"{where} is empty: expected at least one sample")
        for i, sample in enumerate(ids):
            if sample in seen:
                raise UserError(f"{where}, key 'id', row {i}: {sample!r} stands in split {seen[sample]!r} already")
            seen[sample] = name
        features = {m: _features(part[m], f"{where}, key {m!r}", len(ids), m) for m in modalities}
        labels = _numbers(part["regression_labels"], f"{where}, key 'regression_labels'")
        if labels.size != len(ids) or labels.ndim > 2:
            raise UserError(f"{where}, key 'regression_labels': shape {labels.shape}, expected ({len(ids)},)")
        labels = labels.reshape(-1).astype(np.float32)
        _finite(labels, f"{where}, key 'regression_labels'")
        steps = {m: x.shape[1] for m, x in features.items()}
        _axes(features, part.get("text_bert"), where)
        texts = [str(t) for t in part.get("raw_text", [])]
        splits[name] = Split(features, labels, ids, common_steps(steps), texts=texts)
    first = splits["train"].features
    for name, s in splits.items():
        for m, x in s.features.items():
            if x.shape[1:] != first[m].shape[1:]:
                want = first[m].shape[1:]
                raise UserError(f"{path}: split {name!r}, key {m!r}: (T, D) is {x.shape[1:]}, in 'train' it is {want}")
    return splits


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


def _finite(x: np.ndarray, where: str) -> None:
    if not np.isfinite(x).all():
        row = tuple(int(i) for i in np.argwhere(~np.isfinite(x))[0])
        raise UserError(f"{where}, row {row[0]}: {x[row]} at {row}; every number must be finite")


def _features(value: Any, where: str, n: int, modality: str) -> np.ndarray:
    x = _numbers(value, where)
    if x.ndim != 3 or 0 in x.shape[1:]:
        raise UserError(f"{where}: shape {x.shape}, expected (N, T, D)")
    if len(x) != n:
        raise UserError(f"{where}: {len(x)} rows, but there are {n} ids; expected (N, T, D) with N = {n}")
    x = x.astype(np.float32, copy=False)
    if modality == "audio" and np.isneginf(x).any():  # COVAREP writes log(0); the release does the same
        x = np.where(np.isneginf(x), np.float32(0), x)
    _finite(x, where)
    return x


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
