"""The error for bad input. Its message says what was expected, what was given, and what to do."""

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from shutil import disk_usage
from zipfile import BadZipFile, is_zipfile

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO)  # faults of a disk, not of its user
LEAST = 1 << 20  # bytes; torch.save does not say that a disk is full, but leaves less than this


class UserError(ValueError):
    """Bad input, a bad parameter or an unusable path. The command line prints it in one line and exits with code 2."""


def unknown(
    what: str, name: object, known: Iterable[object], expected: str = "expected one of", end: str = ""
) -> UserError:
    """The error for a name that is not known: "WHAT 'NAME': did you mean X? expected one of ..."."""
    known = list(known)
    return UserError(f"{what} {name!r}: {did_you_mean(name, known)}{expected} {known}{end}")


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """A hint for a message: the nearest of the known names, or nothing; a number has no nearest spelling."""
    names = {str(k).lower(): k for k in known}
    near = [] if isinstance(name, (int, float)) else get_close_matches(str(name).lower(), names, n=1)
    return f"did you mean {names[near[0]]}? " if near else ""


def file_fault(path: str | Path) -> str:
    """Why a binary file cannot be read, and what to do. The reading library's own advice is not passed on."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        return str(error.strerror)
    if head.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer, not the file itself: run git lfs pull, or download the file"
    if not head.strip(b"\0"):
        return f"it {'holds only zeros' if head else 'is empty'}: copy or download it again"
    with suppress(BadZipFile):  # Python 3.11 raises it where a damaged file seems to span several disks
        if is_zipfile(path):  # written by torch.save
            return "it is damaged, or holds objects other than tensors: save the state dict alone"
    return "it is damaged or of another format: copy or download it again"


def unwritable(path: str | Path, error: Exception) -> Exception:
    """The error for a path that cannot be written: a RuntimeError if the disk is at fault, otherwise a UserError."""
    fault, reason = not isinstance(error, OSError) or error.errno in DISK, getattr(error, "strerror", None) or error
    if not isinstance(error, OSError) and ("os error 28" in str(error) or disk_usage(Path(path).parent).free < LEAST):
        reason = os.strerror(errno.ENOSPC)
    return (RuntimeError if fault else UserError)(f"{path} cannot be written: {reason}")
