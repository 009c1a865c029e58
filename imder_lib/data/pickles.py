"""Safe reading of pickles."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from imder_lib.errors import UserError

ALLOWED = {
    ("builtins", "set"), ("builtins", "frozenset"), ("builtins", "bytearray"), ("builtins", "complex"),
    ("collections", "OrderedDict"), ("_codecs", "encode"), ("numpy", "ndarray"), ("numpy", "dtype"),
}  # fmt: skip
ALLOWED |= {
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
}
READ = "read it with its own library, and pickle a dict of NumPy arrays"
OTHER_FORMATS = (  # what a file is and what to do, its first bytes
    ("a git-lfs pointer without the data: run git lfs pull", b"version https://git-lfs"),
    ("a web page: download the file again", b"<"),
    ("compressed: decompress it", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"),
    (f"a file of torch.save or np.savez, or a zip archive: {READ}", b"PK", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."),
    (f"a file of np.save: {READ}", b"\x93NUMPY"),
    (f"HDF5 or MATLAB: {READ}", b"\x89HDF", b"MATLAB"),
    (f"JSON: {READ}", b"{", b"["),
    ("full of zeros, from an incomplete download or copy: repeat it", bytes(16)),
)


def _bytearray(value: Any = b"", *encoding: str) -> bytearray:
    if isinstance(value, int):
        raise UserError(f"it asks for a bytearray of {value} bytes that are not in the file")
    return bytearray(value, *encoding)


def _reconstruct(_: None, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    if shape != (0,):
        raise UserError(f"it asks for an array {shape} whose numbers are not in the file")
    return np.ndarray(shape, dtype)


class _SafeUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and plain containers only: everything that could run code needs another global."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise UserError(f"it contains {module}.{name}, but only NumPy arrays and plain containers are allowed")
        own = {"bytearray": _bytearray, "_reconstruct": _reconstruct, "ndarray": None}  # no memory of any size
        return own[name] if name in own else super().find_class(module, name)


def read_pickle(path: Path) -> Any:
    """The content of a pickle, read without running its code; a UserError if it is incomplete or holds classes."""
    try:
        with path.open("rb") as file:
            start = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip()  # a byte-order mark
            if what := [what for what, *heads in OTHER_FORMATS if start.startswith(tuple(heads))]:
                raise UserError(f"it is no pickle but {what[0]}")
            if not start:
                raise UserError("it is empty, from a failed download or copy: repeat it")
            file.seek(0)
            return _SafeUnpickler(file, encoding="latin1").load()  # latin1: arrays written by Python 2
    except UserError as error:
        raise UserError(f"{path} is refused: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # a broken pickle can raise nearly anything
        why = f"{type(error).__name__}: {error!s:.120}, it begins with {start[:16]!r}"
        hint = f"if it is text, {READ}" if start.isascii() else "download or copy it again"
        raise UserError(f"{path} is truncated or not a pickle: {why}; {hint}") from None
