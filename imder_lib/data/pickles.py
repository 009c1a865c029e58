"""Reading pickles safely and without a second copy.

Only NumPy arrays and plain containers are built, nothing that could run code. The bytes of large arrays are not
read at all: the array maps the place in the file where they lie, so that a file may be larger than the memory.
"""

import hashlib
import mmap
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from imder_lib.errors import UserError

BIG = 1 << 16  # bytes; a smaller array is copied
PIECE = 1 << 23  # bytes that a pass over a large array reads at a time

_ALLOWED = {
    ("builtins", "set"), ("builtins", "frozenset"), ("builtins", "bytearray"), ("builtins", "complex"),
    ("collections", "OrderedDict"), ("_codecs", "encode"), ("numpy", "ndarray"), ("numpy", "dtype"),
}  # fmt: skip
_ALLOWED |= {
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))
}


class _AllowList(pickle._Unpickler):  # the one written in Python: its opcodes can be replaced
    """The allow-list, with large bytes as views of the mapped file."""

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO, mapped: mmap.mmap) -> None:
        super().__init__(file, encoding="latin1")  # latin1: files written by Python 2
        self.file, self.mapped = file, mapped

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise UserError(f"it holds {module}.{name}: only NumPy arrays and plain containers are read")
        return super().find_class(module, name)

    def _frame(self) -> None:
        self.read(8)  # a frame only groups opcodes; without it every read stands at the file's own position

    def _bytes(self, width: str) -> None:
        (n,) = struct.unpack(width, self.read(struct.calcsize(width)))
        if n < BIG:
            self.append(self.read(n))
            return
        start = self.file.tell()
        if start + n > len(self.mapped):
            raise EOFError("its end is missing")
        self.file.seek(n, 1)
        self.append(memoryview(self.mapped)[start : start + n])

    def _build(self) -> None:
        blank, state = self.stack[-2:]
        mapped = isinstance(blank, np.ndarray) and isinstance(state, tuple) and isinstance(state[-1], memoryview)
        if not mapped:
            pickle._Unpickler.load_build(self)
            return
        _, shape, dtype, fortran, view = state
        if dtype.hasobject:
            raise UserError("it holds an array of objects as bytes")
        array = np.ndarray(shape, dtype, view, order="F" if fortran else "C")
        self.stack[-2:] = [array]
        for key, value in self.memo.items():
            if value is blank:
                self.memo[key] = array

    dispatch[pickle.FRAME[0]] = _frame
    dispatch[pickle.BINBYTES[0]] = lambda self: self._bytes("<I")
    dispatch[pickle.BINBYTES8[0]] = lambda self: self._bytes("<Q")
    dispatch[pickle.BYTEARRAY8[0]] = lambda self: self._bytes("<Q")
    dispatch[pickle.BUILD[0]] = _build


def read_pickle(path: Path) -> Any:
    """A pickle's content, read through the allow-list; nothing in it can run.

    Large arrays are read-only views of the file (protocol 3 and later; older ones are read into memory).
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            return _AllowList(file, mapped).load()
    except UserError as error:
        raise UserError(f"{path} is refused: {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # a broken pickle can raise nearly anything
        raise UserError(f"{path} is truncated or no pickle: {error!s:.120} ({type(error).__name__})") from None


def pieces(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Rows of an array in pieces of some MB: (first row, piece); mapped pages are given back after each."""
    rows = max(1, PIECE // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]
        release(array)


def release(array: np.ndarray) -> None:
    """Give the memory of a mapped array's pages back; they are read again when they are needed."""
    owner: Any = array
    while owner is not None and not isinstance(owner, mmap.mmap):
        owner = owner.obj if isinstance(owner, memoryview) else getattr(owner, "base", None)
    if owner is not None and not array.flags.writeable and hasattr(owner, "madvise"):
        owner.madvise(mmap.MADV_DONTNEED)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
