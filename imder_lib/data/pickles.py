"""Files: safe reading of pickles, writing that leaves no partial output, checksums."""

import hashlib
import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
OTHER_FORMATS = {  # first bytes -> what the file is and what to do
    b"version https://git-lfs": "a pointer of git-lfs, without the data: run git lfs pull",
    b"<": "a web page or XML, often saved in place of the file: download the file again",
    b"\x1f\x8b": "compressed by gzip: run gunzip",
    b"BZh": "compressed by bzip2: run bunzip2",
    b"\xfd7zXZ": "compressed by xz: run unxz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: run unzstd",
    b"PK": "a zip archive, as torch.save and np.savez write: load or unpack it, and pickle a dict of NumPy arrays",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.": "written by torch.save: load it, and pickle a dict of NumPy arrays",
    b"\x93NUMPY": "written by np.save: load it, and pickle a dict of NumPy arrays",
    b"\x89HDF": "HDF5 (also .csd and .mat): read it with h5py, and pickle a dict of NumPy arrays",
    b"MATLAB": "a MATLAB file: read it with scipy.io.loadmat, and pickle a dict of NumPy arrays",
    b"{": "JSON or other text: read it, and pickle a dict of NumPy arrays",
    b"[": "JSON or other text: read it, and pickle a dict of NumPy arrays",
    bytes(16): "full of zeros: the download or copy is incomplete, repeat it",
}


def _bytearray(value: Any = b"", *encoding: str) -> bytearray:
    if isinstance(value, int):
        raise UserError(f"it asks for a bytearray of {value} bytes that are not in the file")
    return bytearray(value, *encoding)


def _reconstruct(_: Any, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    if shape != (0,):
        raise UserError(f"it asks for an array {shape} whose numbers are not in the file")
    return np.ndarray(shape, dtype)


class _SafeUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and plain containers only: everything that could run code needs another global."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise UserError(f"it contains {module}.{name}, but only NumPy arrays and plain containers are allowed")
        if module == "numpy" and name == "ndarray":  # an argument of _reconstruct; a call of it would allocate any size
            return None
        return {"bytearray": _bytearray, "_reconstruct": _reconstruct}.get(name) or super().find_class(module, name)


def read_pickle(path: Path) -> Any:
    """The content of a pickle, read into memory without running any code in it.

    Raises:
        UserError: the file cannot be read, is not a complete pickle, or contains other classes.
    """
    try:
        with path.open("rb") as file:
            start = file.read(512)
            text = start.removeprefix(b"\xef\xbb\xbf").lstrip()  # a byte-order mark
            if what := next((v for k, v in OTHER_FORMATS.items() if start.startswith(k) or text.startswith(k)), None):
                raise UserError(f"it is no pickle but {what}")
            if not start:
                raise UserError("it is empty: the download or copy failed, repeat it")
            file.seek(0)
            return _SafeUnpickler(file, encoding="latin1").load()  # latin1: arrays written by Python 2
    except UserError as error:
        raise UserError(f"{path} is refused: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except MemoryError:
        raise UserError(f"{path} is truncated, or larger than the memory") from None
    except Exception as error:  # a broken pickle can raise nearly anything
        why = f"{type(error).__name__}: {error!s:.120}, it begins with {start[:16]!r}"
        raise UserError(f"{path} is truncated or not a pickle: {why}; download or copy it again") from None


@contextmanager
def new_path(path: Path) -> Iterator[Path]:
    """A temporary path for a new file or folder: renamed to ``path`` if the block succeeds, removed if it fails.

    Raises:
        UserError: ``path`` exists or cannot be written.
    """
    if path.exists():
        raise UserError(f"{path} exists already: choose a new name, or remove it first")
    part = path.with_name(f".{path.name}.part{os.getpid()}")
    try:
        yield part
        part.rename(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
        with suppress(OSError):
            part.unlink()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
