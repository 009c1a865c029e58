"""The command line: reproduce, sweep, pretrain, run, convert, check, fake. Bad input is one line and exit code 2."""

import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from imder_lib.errors import UserError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

Seeds = Annotated[str, typer.Option(help="one model each: 1 or 1,2,3; empty: 1, in profile paper 1111 to 1119")]
Resume = Annotated[bool, typer.Option(help="go on with a run that was cut off")]
Recipe = Annotated[str, typer.Option(help="of profile paper: staged, released or both, joined by a comma")]
Text = Annotated[str, typer.Option(help="features, bert-frozen or bert-finetune")]
Pretrained = Annotated[str, typer.Option(help="skip stage 1: a pretrained .safetensors, or the authors' .pth")]
Epochs = Annotated[int, typer.Option(help="at most, for every stage; 0: the profile's")]
Steps = Annotated[int, typer.Option(help="network calls of the sampler; 0: the profile's")]
DATASETS = "synthetic, gaussian, digits, two_moons, mosi, mosei or a path"
Dataset = Annotated[str, typer.Option(help=DATASETS)]
Download = Annotated[bool, typer.Option("--download-bert", help="fetch bert-base-uncased if it is not in pt/")]


@app.command()
def reproduce(
    dataset: Dataset = "synthetic",
    profile: Annotated[str, typer.Option(help="smoke, quick, full or paper")] = "quick",
    seeds: Seeds = "",
    out: Annotated[str, typer.Option(help="a new folder")] = "results/reproduce",
    resume: Resume = False,
    timeout: Annotated[float, typer.Option(help="seconds for each notebook")] = 172800.0,
    recipe: Recipe = "staged",
    text: Text = "features",
    pretrained: Pretrained = "",
    epochs: Epochs = 0,
    steps: Steps = 0,
    download_bert: Download = False,
) -> None:
    """Run the notebooks 01, 03, 04, 05 (profile paper: the whole grid before) and write OUT/index.html."""
    from imder_lib.runs.reproduce import Options
    from imder_lib.runs.reproduce import reproduce as job

    options = Options(text, pretrained, epochs, steps, download_bert)
    kw = {"resume": resume, "timeout": timeout, "options": options, "recipes": recipe}
    print(f"report: {job(dataset, profile, seeds, out, **kw)}")


@app.command()
def sweep(
    dataset: Dataset = "synthetic",
    profile: Annotated[str, typer.Option(help="smoke, quick, full or paper")] = "paper",
    seeds: Seeds = "",
    out: Annotated[str, typer.Option(help="a new folder")] = "results/sweep",
    resume: Resume = False,
    recipe: Recipe = "staged",
    rates: Annotated[str, typer.Option(help="of the random protocol, 0.1,0.5; empty: all eight")] = "",
    text: Text = "features",
    pretrained: Pretrained = "",
    epochs: Epochs = 0,
    steps: Steps = 0,
    download_bert: Download = False,
) -> None:
    """The paper's grid cell by cell, without the notebooks: OUT/cells and OUT/tables."""
    from imder_lib.runs.reproduce import Options, run_sweep

    options = Options(text, pretrained, epochs, steps, download_bert)
    kw = {"recipes": recipe, "rates": rates, "resume": resume, "options": options}
    print(f"tables: {run_sweep(dataset, profile, seeds, out, **kw)}")


@app.command()
def pretrain(
    dataset: Annotated[str, typer.Argument(help=DATASETS)],
    path: Annotated[Path | None, typer.Argument(help="the result; pt/pretrained-DATASET.safetensors")] = None,
    profile: Annotated[str, typer.Option(help="smoke, quick, full or paper")] = "paper",
    seed: Annotated[int, typer.Option(help="of initial weights and batch order")] = 1111,
    text: Text = "features",
    epochs: Epochs = 0,
    resume: Resume = False,
    download_bert: Download = False,
) -> None:
    """Stage 1 alone: encoders and fusion (and BERT, under --text bert-finetune) on complete data."""
    from imder_lib.runs.reproduce import Options, pretrain_alone

    options = Options(text, epochs=epochs, download_bert=download_bert)
    print(f"pretrained: {pretrain_alone(dataset, profile, seed, path, options, resume=resume)}")


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
    from imder_lib.data.load import convert as job

    print(job(path, folder).describe())


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
