"""A user's own code in a sweep: a Python file that registers recoverers and samplers, read by every process."""

import hashlib
import importlib.util
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from importlib.machinery import PathFinder
from pathlib import Path

from imder_lib.config import ModelConfig
from imder_lib.diffusion.samplers import SAMPLERS
from imder_lib.errors import UserError
from imder_lib.model.recoverers import RECOVERERS
from imder_runs.comparison import COMPARED
from imder_runs.trial import try_recoverer

KIT = tuple((table, dict(table)) for table in (COMPARED, SAMPLERS, RECOVERERS))  # before any extension is read
OWN = {"", *COMPARED, *SAMPLERS}


def load_extension(path: str) -> None:
    """Run the file as a module of its name.

    Raises:
        UserError: it is no Python file, is named like another module, raises an error, or registers something under
            a name of the kit.
    """
    file = Path(path).resolve()
    if file.suffix != ".py" or not file.is_file():
        raise UserError(f"extension must be a Python file that registers recoverers or samplers, got {file}")
    places = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(Path(__file__).parents[1])]
    if file.stem in sys.stdlib_module_names or PathFinder.find_spec(file.stem, places):
        raise UserError(f"extension {path} is named like another Python module: rename it")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)  # as an import does
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[file.stem]
        raise UserError(f"extension {path} ends in an error: {_said(error, file)}") from None
    for table, before in KIT:
        if taken := [name for name, value in before.items() if table.get(name) is not value]:
            table.update(before)
            raise UserError(f"extension {path} registers {taken[0]!r}, a name of the kit: choose another name")
    for name, row in list(COMPARED.items()):
        text = isinstance(name, str) and isinstance(row, Mapping) and all(isinstance(k, str) for k in row)
        if not text or not re.fullmatch(r"[\w.-]+", name) or name in ("fusion", "shared"):
            del COMPARED[name]
            expected = "COMPARED[NAME] = {'recoverer': NAME}, with a NAME of letters, digits, '.', '_', '-'"
            raise UserError(f"extension {path}: expected {expected}, not fusion or shared, got {name!r}: {row!r}")


def extension_of(path: str, *names: str) -> dict[str, str]:
    """Settings of a cell whose recoverer or sampler comes from the file; none if all names are the kit's."""
    return {} if not path or OWN.issuperset(names) else {"extension": path, "extension_sha256": file_hash(path)}


def file_hash(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def try_extension(path: str, name: str, config: Callable[[], ModelConfig], samples: int, steps: int) -> None:
    """:func:`try_recoverer` for a recoverer of the file, or for one with its sampler; a UserError says its line."""
    try:
        try_recoverer(config(), samples, steps)
    except UserError as error:
        raise UserError(f"recoverer {name!r} of extension {path}: {error}") from None
    except Exception as error:
        said = _said(error, Path(path).resolve())
        raise UserError(f"recoverer {name!r} of extension {path} ends in an error: {said}") from None


def _said(error: Exception, file: Path) -> str:
    """An error of the user's code, with its line if it was raised below the file."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == file]
    where = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {' '.join(str(error).split()):.200}{where}"
