"""The commands sweep, status and compare: their options, and what they do."""

import json
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from imder_lib.data.missing import RATES
from imder_lib.errors import UserError
from imder_lib.experiment.training import RECIPES
from imder_lib.files import write_text
from imder_runs.grid import read_grid
from imder_runs.outcome import compare, status
from imder_runs.profiles import find_profile
from imder_runs.reproduce import Folder, ProfileName, Settings, grid_of, open_run
from imder_runs.setup import get_bert
from imder_runs.sweep import Workers, parse_list, sweep

IN_GRID = ("dataset", "profile", "seeds", "recipe", "text", "pretrained", "epochs", "steps", "rates")


@dataclass
class SweepSettings(Settings):
    profile: ProfileName = "full"
    out: Folder = "results/sweep"
    rates: Annotated[str, Option(help="of the random protocol, 0.1,0.5; empty: all")] = ""
    grid: Annotated[str, Argument(help="a YAML file, see sweeps/, in place of the options that say what to train")] = ""
    only: Annotated[str, Option(help="run only cells whose label matches, such as '*-seed1111'")] = ""
    dry_run: Annotated[bool, Option("--dry-run", help="print what would run, and how long if that is known")] = False
    workers: Annotated[int, Option(help="processes on this machine; 0: one cell after the other")] = 0
    scheduler: Annotated[str, Option(help="of Dask, that runs already: tcp://HOST:PORT")] = ""
    scheduler_file: Annotated[str, Option(help="... or the file that it has written")] = ""
    memory: Annotated[float, Option(help="GB for each cell; 0: no limit")] = 0.0


@dataclass
class StatusSettings:
    folder: Annotated[Path, Argument(help="of a sweep")]
    json: Annotated[bool, Option("--json", help="one line of JSON")] = False
    watch: Annotated[float, Option(help="seconds between two looks; 0: one look")] = 0.0


@dataclass
class CompareSettings:
    a: Annotated[Path, Argument(help="folder of a sweep")]
    b: Annotated[Path, Argument(help="folder of another")]
    out: Annotated[Path | None, Option(help="a CSV file")] = None


def sweep_alone(settings: SweepSettings) -> Path | None:
    """Run a grid without the notebooks, on one machine or several; write OUT/cells, OUT/results.csv and OUT/tables."""
    workers = Workers(*(getattr(settings, f.name) for f in fields(Workers)))
    folder, rest = Path(settings.out).resolve(), {"only": settings.only, "dry_run": settings.dry_run}
    if settings.grid:
        usual = asdict(SweepSettings()) | {"seeds": find_profile(settings.profile).seeds}
        if given := [k for k in IN_GRID if getattr(settings, k) != usual[k]]:
            raise UserError(f"{settings.grid} says what to train: write {', '.join(given)} there")
        grid = read_grid(settings.grid)
        if settings.download_bert:
            get_bert(grid.text)
        sweep(grid, folder, workers, **rest)
        return None if settings.dry_run else folder / "tables"
    recipes = parse_list(settings.recipe, list(RECIPES), "recipe")
    rates = parse_list(settings.rates, RATES, "rate") if settings.rates else []
    if not settings.dry_run:
        open_run(settings, recipes, rates)
    sweep(grid_of(settings, recipes, rates), folder, workers, **rest)
    return None if settings.dry_run else folder / "tables"


def show_status(settings: StatusSettings) -> None:
    """Show the state of a sweep: cells that are done, running, failed and left."""
    if not 0 <= settings.watch < float("inf"):
        raise UserError(f"watch must be a number of seconds of at least 0, got {settings.watch}")
    while True:
        found = status(settings.folder)
        print(json.dumps(found) if settings.json else _status_lines(found), flush=True)
        if not settings.watch or found["done"] == found["cells"]:
            return
        time.sleep(settings.watch)


def _status_lines(found: dict[str, Any]) -> str:
    numbers = ", ".join(f"{found[k]} {k}" for k in ("done", "running", "failed", "left"))
    seconds = found["estimated_cell_seconds"]
    lines = [f"{found['cells']} cells: {numbers}" + (f"; {seconds / 60:.0f} minutes of work left" if seconds else "")]
    lines += [f"running {name}" for name in found["running_names"]]
    return "\n".join(lines + [f"failed {f['name']}: {f.get('error', '')}" for f in found["failures"]])


def compare_alone(settings: CompareSettings) -> str:
    """Compare two sweeps cell by cell: paired differences B - A with 95 % intervals over seeds."""
    table = compare(settings.a, settings.b)
    if settings.out:
        write_text(settings.out, table.to_csv(index=False))
    return table.to_markdown(index=False, floatfmt=".4g")
