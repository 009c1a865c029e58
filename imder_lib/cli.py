"""The command line: reproduce, sweep, pretrain, run, convert, check, fake. Bad input is one line and exit code 2."""

import inspect
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from imder_lib.errors import UserError
from imder_lib.runs.settings import DATASETS, Download, Epochs, ProfileName, Resume, Settings, Text

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


def settings_command(**defaults: str) -> Callable[[Callable], Callable]:
    """A command whose first parameter is a Settings: its fields become options, with other defaults where given."""

    def register(command: Callable) -> Callable:
        fields = inspect.signature(Settings).parameters.values()
        options = [p.replace(default=defaults.get(p.name, p.default)) for p in fields]
        own = list(inspect.signature(command).parameters.values())[1:]

        def call(**given: object) -> None:
            rest = {p.name: given.pop(p.name) for p in own}
            command(Settings(**given), **rest)

        call.__signature__ = inspect.Signature([*options, *own])  # what typer reads
        return app.command(command.__name__, help=command.__doc__)(call)

    return register


@settings_command(profile="quick", out="results/reproduce")
def reproduce(
    settings: Settings,
    timeout: Annotated[float, typer.Option(help="seconds for each notebook")] = 172800.0,
) -> None:
    """Run the notebooks 01, 03, 04, 05 (profile full: the whole grid before) and write OUT/index.html."""
    from imder_lib.runs import reproduce as jobs

    print(f"report: {jobs.reproduce(settings, timeout)}")


@settings_command(profile="full", out="results/sweep")
def sweep(
    settings: Settings,
    rates: Annotated[str, typer.Option(help="of the random protocol, 0.1,0.5; empty: all eight")] = "",
) -> None:
    """The paper's grid cell by cell, without the notebooks: OUT/cells and OUT/tables."""
    from imder_lib.runs import reproduce as jobs

    print(f"tables: {jobs.run_sweep(settings, rates)}")


@app.command()
def pretrain(
    dataset: Annotated[str, typer.Argument(help=DATASETS)],
    path: Annotated[Path | None, typer.Argument(help="the result; pt/pretrained-DATASET.safetensors")] = None,
    profile: ProfileName = "full",
    seed: Annotated[int, typer.Option(help="of initial weights and batch order")] = 1111,
    text: Text = "features",
    epochs: Epochs = 0,
    resume: Resume = False,
    download_bert: Download = False,
) -> None:
    """Stage 1 alone: encoders and fusion (and BERT, under --text bert-finetune) on complete data."""
    from imder_lib.runs import reproduce as jobs

    options = {"text": text, "epochs": epochs, "download_bert": download_bert}
    print(f"pretrained: {jobs.pretrain_alone(dataset, profile, seed, path, resume=resume, **options)}")


@app.command()
def run(
    notebook: Annotated[Path, typer.Argument(help="a notebook with a parameters cell")],
    out: Annotated[Path, typer.Argument(help="the executed notebook")],
    parameter: Annotated[list[str] | None, typer.Option("-p", help="NAME=VALUE, any number of times")] = None,
    timeout: Annotated[float, typer.Option(help="seconds for the whole run")] = 3600.0,
) -> None:
    """Execute one notebook headlessly with checked parameters."""
    from imder_lib.runs.notebook import run_notebook

    pairs = [p.partition("=") for p in parameter or []]
    if bad := [p[0] for p in pairs if not p[1]]:
        raise UserError(f"-p {bad[0]}: expected NAME=VALUE")
    run_notebook(notebook, out, {k: v for k, _, v in pairs}, timeout=timeout)
    print(f"executed: {out}")


@app.command()
def convert(path: Path, folder: Path) -> None:
    """Write a data file once as memory-mapped arrays with a manifest."""
    from imder_lib.data import load

    print(load.convert(path, folder).describe())


@app.command()
def fake(name: Annotated[str, typer.Argument(help="mosi or mosei")], path: Path) -> None:
    """Write random numbers in the exact schema and size of MOSI or MOSEI: for rehearsals, never for results."""
    from imder_lib.data.fake import write_fake

    written = write_fake(name, path)
    print(f"{written}: {written.stat().st_size / 1e6:.0f} MB of fake data")


@app.command()
def check(path: str) -> None:
    """Say what a data file holds and whether it fits."""
    from imder_lib.data.load import load_data

    print(load_data(path).describe())
    print("it fits")


def main() -> None:
    """Entry point of the command imder."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    try:
        app(standalone_mode=False)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except UserError as error:
        sys.exit(_fail(str(error), 2))
    except RuntimeError as error:
        sys.exit(_fail(str(error), 1))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(_fail("interrupted: go on with --resume", 130))
    except Exception as error:
        if hasattr(error, "format_message"):  # click's usage errors
            sys.exit(_fail(error.format_message(), 2))
        raise


def _fail(message: str, code: int) -> int:
    print(f"imder: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
