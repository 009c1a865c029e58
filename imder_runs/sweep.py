"""A sweep: plans the cells of a grid, runs those that are not finished, and writes the tables of those that are."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from imder_lib.errors import UserError, unknown
from imder_lib.experiment.parallel import own_cores
from imder_runs.attempt import CELLS, WORK, How, Result, own_threads
from imder_runs.cell_child import FORKS
from imder_runs.cells import Cell
from imder_runs.engine import names, pool_of, run_cells
from imder_runs.grid import Grid, plan
from imder_runs.locks import held
from imder_runs.outcome import PLAN, estimate, read_plan, write_plan, write_results


@dataclass(frozen=True)
class Workers:
    """Where the cells run; by default in this process, one after the other."""

    workers: int = 0  # processes on this machine
    scheduler: str = ""  # tcp://HOST:PORT
    scheduler_file: str = ""
    memory: float = 0.0  # GB of each cell; 0: no limit

    def __post_init__(self) -> None:
        if not 0 <= self.memory < float("inf"):
            raise UserError(f"memory must be a number of GB of at least 0, got {self.memory}")
        if self.memory and not FORKS:
            raise UserError("memory can be limited on Linux only: leave it out")

    def how(self, folder: Path) -> How:
        # Dask sets OMP_NUM_THREADS to 1 on its workers: what this command was given must be passed on.
        threads = (own_threads() or max(1, len(own_cores()) // self.workers)) if self.workers else 0
        return How(str(folder.resolve()), workers=self.workers, threads=threads, memory=int(1e9 * self.memory))


def parse_list(text: str, known: Sequence, what: str) -> list:
    """Parse distinct entries of "a,b"; all known entries if empty."""
    kind = type(known[0])
    try:
        chosen = [kind(x) for x in text.split(",")] if text else list(known)
    except ValueError:
        chosen = [text]
    if bad := [x for x in chosen if x not in known]:
        raise unknown(f"unknown {what}", bad[0], known, "expected one or more of", ", joined by commas")
    return list(dict.fromkeys(chosen))


def chosen(cells: Sequence[Cell], only: str) -> list[Cell]:
    """Cells whose label matches a pattern with * and ?, and the fusion stages that they need."""
    found = {c.name for c in cells if not only or fnmatch(c.label, only) or fnmatch(c.name, only)}
    if not found:
        raise UserError(f"no cell matches {only!r}: the labels are like {cells[-1].label!r}")
    found |= {c.needs for c in cells if c.name in found}
    return [c for c in cells if c.name in found]


def sweep(
    grid: Grid, folder: Path, workers: Workers | None = None, only: str = "", dry_run: bool = False
) -> list[Cell]:
    """Run the cells of a grid that are not finished; write FOLDER/results.csv and FOLDER/tables.

    A folder may be swept again, with the same grid or another one: finished cells stay, failed ones are tried again.

    Args:
        grid: what to train and test.
        folder: of the sweep; the same path on all machines.
        workers: where the cells run.
        only: pattern of labels; empty: all.
        dry_run: print what would run, and run nothing.

    Returns:
        the cells of the grid

    Raises:
        UserError: the grid cannot be used, or the folder holds something else.
        RuntimeError: cells failed; the others are finished.
    """
    cells, workers = plan(grid), workers or Workers()
    todo = [c for c in chosen(cells, only) if c.name not in names(folder / CELLS)]
    if dry_run:
        for cell in todo:
            print(cell.name)
        print(f"{len(todo)} of {len(cells)} cells would run{estimate(folder, todo, workers.workers or 1)}")
        return cells
    if names(folder) - {"run.json"} and not (folder / PLAN).exists():
        raise UserError(f"{folder} holds other things than a sweep: name another folder")
    how = workers.how(folder)  # before the pool: Dask sets OMP_NUM_THREADS of this process, too
    pool_or_none = pool_of(workers.workers, workers.scheduler, workers.scheduler_file) if todo else nullcontext()
    with pool_or_none as pool:  # without workers the folder stays as it is
        with _alone(folder):
            write_plan(folder, cells)
        print(f"{len(todo)} of {len(cells)} cells to run{estimate(folder, todo, workers.workers or 1)}", flush=True)
        try:
            results = run_cells(pool, todo, how, _reporter()) if todo else {}
        finally:
            with _alone(folder):
                if [c.name for c in read_plan(folder)] == [c.name for c in cells]:
                    write_results(folder, cells)
                else:
                    print(f"{folder} shows another grid, which was started later: for this one start it again")
    if failed := [r for r in results.values() if r["state"] == "failed"]:
        raise RuntimeError(
            f"{len(failed)} of {len(todo)} cells failed, such as {failed[0]['name']}: {failed[0]['error']}; "
            f"imder status {folder} lists them, the same command tries them again (without a grid file: --resume)"
        )
    return cells


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Write plan and tables while no other sweep of the same folder does."""
    place = folder / WORK / ".results"
    with held(place, "another sweep writes here"):
        yield
    with suppress(OSError):
        place.rmdir()


def _reporter() -> Callable[[Result, int], None]:
    def report(result: Result, left: int) -> None:
        end = f"failed: {result['error']}" if result["state"] == "failed" else f"done, {result['seconds']:.0f} s"
        print(f"{result['name']} {end}; {left} left", flush=True)

    return report
