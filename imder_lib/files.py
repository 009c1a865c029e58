"""Writing that leaves no incomplete file or folder."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from imder_lib.errors import UserError, unwritable


@contextmanager
def written_whole(path: Path, new: bool = False) -> Iterator[Path]:
    """A temporary path that becomes ``path`` at the end of the block, so ``path`` is never incomplete.

    Args:
        new: a file or folder that may not exist yet; otherwise a file, which is replaced.

    Raises:
        UserError: it cannot be written, or exists already; ``path`` is unchanged.
        RuntimeError: it cannot be written, because the disk is full or broken.
    """
    if new and path.exists():
        raise UserError(f"{path} exists already: choose a new name, or remove it first")
    own = f".{os.getpid()}" if new else ""  # two processes may write a new path, but not one within a run
    part, bare = path.with_name(f".{path.name}{own}.part"), not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        if part.is_file():
            with part.open("rb") as file:
                os.fsync(file.fileno())
        part.replace(path)
    except (OSError, SafetensorError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
        raise unwritable(path, error) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
        with suppress(OSError):
            part.unlink(missing_ok=True)
            if bare and not path.exists():
                path.parent.rmdir()


def write_text(path: Path, text: str) -> None:
    """Write a text file, UTF-8."""
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8", errors="surrogateescape")  # paths of a locale without UTF-8
