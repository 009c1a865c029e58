"""Files: safe reading of pickles, writing that leaves no partial output, checksums."""

import hashlib
import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

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


class _SafeUnpickler(pickle.Unpickler):
    """Builds NumPy arrays and plain containers only: everything that could run code needs another global."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise UserError(f"it contains {module}.{name}, but only NumPy arrays and plain containers are allowed")
        return super().find_class(module, name)


def read_pickle(path: Path) -> Any:
    """The content of a pickle, read into memory without running any code in it.

    Raises:
        UserError: the file cannot be read, is not a complete pickle, or contains other classes.
    """
    try:
        with path.open("rb") as file:
            return _SafeUnpickler(file, encoding="latin1").load()  # latin1: arrays written by Python 2
    except UserError as error:
        raise UserError(f"{path} is refused: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # a broken pickle can raise nearly anything
        raise UserError(f"{path} is truncated or not a pickle: {error!s:.120} ({type(error).__name__})") from None


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
