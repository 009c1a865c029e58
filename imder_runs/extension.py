"""A user's own code in a sweep: a Python file that registers recoverers and samplers, read by every process."""

import hashlib
import importlib.util
import sys
from pathlib import Path

from imder_lib.diffusion.samplers import SAMPLERS
from imder_lib.errors import UserError
from imder_runs.comparison import COMPARED

OWN = {"", *COMPARED, *SAMPLERS}  # the kit's names, before any extension is read


def load_extension(path: str) -> None:
    """Run the file as a module of its name.

    Raises:
        UserError: it is no Python file, or it raises an error.
    """
    file = Path(path)
    if file.suffix != ".py" or not file.is_file():
        raise UserError(f"extension must be a Python file that registers recoverers or samplers, got {path}")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)  # as an import does
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[file.stem]
        raise UserError(f"extension {path} ends in an error: {type(error).__name__}: {error!s:.200}") from None


def extension_of(path: str, *names: str) -> dict[str, str]:
    """Settings of a cell whose recoverer or sampler comes from the file; none if all names are the kit's."""
    return {} if not path or OWN.issuperset(names) else {"extension": path, "extension_sha256": file_hash(path)}


def file_hash(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
