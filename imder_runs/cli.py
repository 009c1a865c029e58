"""The command line: reproduce, sweep, status, compare, pretrain, run, convert, check, fake.

Bad input gives one line and exit code 2.
"""

import inspect
import sys
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from imder_lib.data.load import load_data
from imder_lib.errors import UserError
from imder_runs import reproduce as jobs
from imder_runs import sweep_commands
from imder_runs.convert import convert as convert_file
from imder_runs.describe import UNTRAINABLE, describe
from imder_runs.fake import write_fake
from imder_runs.interrupts import INTERRUPTED, interrupted, restore_interrupt
from imder_runs.notebook import run_notebook
from imder_runs.places import HOME, NOTEBOOKS

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


def add_command(name: str, job: Callable[[Any], Path | str | None], result: str = "") -> None:
    """Register a job of one argument, a settings dataclass: its fields become the options, its docstring the help.

    What the job returns is printed after ``result``; None: nothing is.
    """
    kind = job.__annotations__["settings"]

    @wraps(job)
    def call(**given: object) -> None:
        if (done := job(kind(**given))) is not None:
            print(f"{result}: {done}" if result else done)

    call.__signature__ = inspect.signature(kind)  # read by typer
    app.command(name)(call)


add_command("reproduce", jobs.reproduce, "report")
add_command("sweep", sweep_commands.sweep_alone, "tables")
add_command("status", sweep_commands.show_status)
add_command("compare", sweep_commands.compare_alone)
add_command("pretrain", jobs.pretrain_alone, "pretrained")


@app.command()
def run(
    notebook: Annotated[
        Path, typer.Argument(help="one with a parameters cell: a path, or the name of one of the kit's")
    ],
    out: Annotated[Path | None, typer.Argument(help="the executed notebook; results/executed/NAME")] = None,
    parameter: Annotated[list[str] | None, typer.Option("-p", help="NAME=VALUE, any number of times")] = None,
    timeout: Annotated[float, typer.Option(help="seconds for the whole run")] = 3600.0,
) -> None:
    """Execute one notebook without a browser, with checked parameters."""
    pairs = [p.partition("=") for p in parameter or []]
    if bad := [p[0] for p in pairs if not p[1]]:
        raise UserError(f"-p {bad[0]}: expected NAME=VALUE")
    if not notebook.exists() and (NOTEBOOKS / notebook).is_file():
        notebook = NOTEBOOKS / notebook
    out = out or Path("results", "executed", notebook.name)
    run_notebook(notebook, out, {k: v for k, _, v in pairs}, timeout=timeout)
    print(f"executed: {out}")


@app.command()
def convert(path: Path, folder: Path) -> None:
    """Convert a data file to a folder of memory-mapped arrays."""
    print(describe(convert_file(path, folder)))


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
    text = describe(load_data(path, root=HOME / "data"))
    print(text)
    print("it can be read, no more" if UNTRAINABLE in text else "it fits")


def main() -> None:
    """Entry point of the command imder."""
    restore_interrupt()
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    for stream in (sys.stdout, sys.stderr):  # a locale without UTF-8 must not stop a command that has done its work
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    message = ""
    try:
        code = app(standalone_mode=False)  # typer catches an interruption and returns its code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except UserError as error:
        code, message = 2, str(error)
    except RuntimeError as error:
        code, message = 1, str(error)
    except OSError as error:  # a full disk, a file that may not be read
        code, message = 1, f"{error.filename or 'a file'}: {error.strerror or error}"
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's usage errors have it
            raise
        code, message = 2, error.format_message()
    if code == INTERRUPTED:
        message = interrupted()
    if message:
        print(f"imder: {' '.join(message.split())}", file=sys.stderr)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    main()
