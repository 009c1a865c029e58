"""The command line: reproduce, sweep, pretrain, run, convert, check, fake. Bad input gives one line and exit code 2."""

import inspect
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated

import typer

from imder_lib.data import load
from imder_lib.data.fake import write_fake
from imder_lib.errors import UserError
from imder_lib.interrupt import CODE, interrupted, restore
from imder_lib.runs import reproduce as jobs
from imder_lib.runs.notebook import run_notebook

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


def with_settings(command: Callable) -> Callable:
    """Register a command whose only argument is a settings dataclass; its fields become the options."""
    kind = command.__annotations__["settings"]

    @wraps(command)
    def call(**given: object) -> None:
        command(kind(**given))

    call.__signature__ = inspect.signature(kind)  # read by typer
    return app.command()(call)


@with_settings
def reproduce(settings: jobs.ReproduceSettings) -> None:
    """Run the notebooks 01, 03, 04, 05 (profile full: first the whole grid) and write OUT/index.html."""
    print(f"report: {jobs.reproduce(settings)}")


@with_settings
def sweep(settings: jobs.SweepSettings) -> None:
    """Run the paper's grid without the notebooks; write OUT/cells and OUT/tables."""
    print(f"tables: {jobs.sweep_alone(settings)}")


@with_settings
def pretrain(settings: jobs.PretrainSettings) -> None:
    """Train encoders and fusion (with --text bert-finetune also BERT) on complete data."""
    print(f"pretrained: {jobs.pretrain_alone(settings)}")


@app.command()
def run(
    notebook: Annotated[Path, typer.Argument(help="a notebook with a parameters cell")],
    out: Annotated[Path, typer.Argument(help="the executed notebook")],
    parameter: Annotated[list[str] | None, typer.Option("-p", help="NAME=VALUE, any number of times")] = None,
    timeout: Annotated[float, typer.Option(help="seconds for the whole run")] = 3600.0,
) -> None:
    """Execute one notebook without a browser, with checked parameters."""
    pairs = [p.partition("=") for p in parameter or []]
    if bad := [p[0] for p in pairs if not p[1]]:
        raise UserError(f"-p {bad[0]}: expected NAME=VALUE")
    run_notebook(notebook, out, {k: v for k, _, v in pairs}, timeout=timeout)
    print(f"executed: {out}")


@app.command()
def convert(path: Path, folder: Path) -> None:
    """Convert a data file to a folder of memory-mapped arrays."""
    print(load.convert(path, folder).describe())


@app.command()
def fake(
    name: Annotated[str, typer.Argument(help="mosi or mosei")],
    path: Path,
    missing: Annotated[float, typer.Option(help="share of modalities that samples lack")] = 0.0,
) -> None:
    """Write random numbers in the exact schema and size of MOSI or MOSEI: for rehearsals, never for results."""
    written = write_fake(name, path, missing=missing)
    print(f"{written}: {written.stat().st_size / 1e6:.0f} MB of fake data")


@app.command()
def check(path: str) -> None:
    """Check a data file and print a summary."""
    print(load.load_data(path).describe())
    print("it fits")


def main() -> None:
    """Entry point of the command imder."""
    restore()
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    for stream in (sys.stdout, sys.stderr):  # a locale without UTF-8 must not stop a command that has done its work
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        if code := app(standalone_mode=False):  # typer catches an interruption and returns its code
            sys.exit(_fail(interrupted(), CODE) if code == CODE else code)
    except UserError as error:
        sys.exit(_fail(str(error), 2))
    except RuntimeError as error:
        sys.exit(_fail(str(error), 1))
    except OSError as error:  # a full disk, a file that may not be read
        sys.exit(_fail(f"{error.filename or 'a file'}: {error.strerror or error}", 1))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(_fail(interrupted(), CODE))
    except Exception as error:
        if hasattr(error, "format_message"):  # click's usage errors
            sys.exit(_fail(error.format_message(), 2))
        raise


def _fail(message: str, code: int) -> int:
    print(f"imder: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
