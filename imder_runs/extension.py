"""A user's own code in a sweep: a Python file that registers recoverers and samplers, read by every process."""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

import torch

from imder_lib.config import ModelConfig
from imder_lib.data.missing import available_columns, patterns
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.diffusion.samplers import SAMPLERS
from imder_lib.errors import UserError
from imder_lib.model.recoverers import RECOVERERS, make_recoverer
from imder_lib.model.recovery import Recoverer
from imder_runs.comparison import COMPARED

KIT = tuple((table, dict(table)) for table in (COMPARED, SAMPLERS, RECOVERERS))  # before any extension is read
OWN = {"", *COMPARED, *SAMPLERS}
SAMPLES, STEPS = 32, 8  # of the random latents on which a recoverer is tried


def load_extension(path: str) -> None:
    """Run the file as a module of its name.

    Raises:
        UserError: it is no Python file, raises an error, or registers something under a name of the kit.
    """
    file = Path(path).resolve()
    if file.suffix != ".py" or not file.is_file():
        raise UserError(f"extension must be a Python file that registers recoverers or samplers, got {file}")
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


def extension_of(path: str, *names: str) -> dict[str, str]:
    """Settings of a cell whose recoverer or sampler comes from the file; none if all names are the kit's."""
    return {} if not path or OWN.issuperset(names) else {"extension": path, "extension_sha256": file_hash(path)}


def file_hash(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def try_extension(path: str, name: str, config: ModelConfig) -> None:
    """Prepare and use a recoverer of the file, or one with its sampler, on random latents, before anything is trained.

    Raises:
        UserError: it ends in an error, gives something else than :class:`Recoverer` says, or draws other numbers from
            the same noise.
    """
    head, g = f"recoverer {name!r} of extension {path}", torch.Generator().manual_seed(0)
    table = available_columns(patterns(config.modalities, complete=False), config.modalities)
    latents = {m: torch.randn(SAMPLES, config.dim, STEPS, generator=g) for m in config.modalities}
    part, ids = {m: x[: len(table)] for m, x in latents.items()}, list(map(str, range(len(table))))
    try:
        recoverer = make_recoverer(config)
        if not isinstance(recoverer, Recoverer):
            raise UserError(f"{head}: expected a subclass of Recoverer, got {type(recoverer).__name__}")
        recoverer.eval().prepare(latents)
        with torch.no_grad():
            out = recoverer({m: x.clone() for m, x in part.items()}, table, SampleNoise(0, ids, "try"))
        _check_output(head, out, part, table)
        first, second = (recoverer.recover(part, table, SampleNoise(0, ids, "try"), draws=2) for _ in range(2))
        if recoverer.trained:
            found = recoverer.train().losses(part, table, g)
            if not isinstance(found, Mapping) or found.keys() != part.keys() or any(x.dim() for x in found.values()):
                raise UserError(f"{head}: losses must give modality -> scalar for {list(part)}")
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{head} ends in an error: {_said(error, Path(path).resolve())}") from None
    if not all(torch.equal(first[m], second[m]) for m in first):
        raise UserError(f"{head} draws other numbers from the same noise: take all of them from normal(x, noise)")
    if (differ := any(not torch.equal(*x) for x in first.values())) != recoverer.stochastic:
        raise UserError(f"{head}: its draws {'differ' if differ else 'are equal'}: set stochastic = {differ}")


def _check_output(head: str, out: object, part: Mapping[str, torch.Tensor], available: torch.Tensor) -> None:
    if not isinstance(out, Mapping) or out.keys() != part.keys():
        got = list(out) if isinstance(out, Mapping) else type(out).__name__
        raise UserError(f"{head}: forward must return modality -> (B, D, T) for {list(part)}, got {got}")
    for i, (m, x) in enumerate(part.items()):
        if out[m].shape != x.shape or not torch.isfinite(out[m]).all():
            finite = (
                "finite numbers" if out[m].shape == x.shape else f"shape {tuple(x.shape)}, got {tuple(out[m].shape)}"
            )
            raise UserError(f"{head}: forward must return {m} with {finite}")
        if not torch.equal(out[m][available[:, i]], x[available[:, i]]):
            raise UserError(f"{head}: forward changes {m} where it is available: return self.fill(...)")


def _said(error: Exception, file: Path) -> str:
    """An error of the user's code, with its line if it was raised below the file."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == file]
    where = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {error!s:.200}{where}"
