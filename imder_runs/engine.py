"""Runs the cells of a sweep: one after the other, or on the workers of Dask."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from imder_lib.errors import UserError
from imder_runs.attempt import CELLS, WORK, How, Result, close_servers, result_of, run_cell
from imder_runs.cells import Cell
from imder_runs.locks import Watch


class Pool(Protocol):
    """What runs jobs."""

    window: int  # jobs that it holds at once

    def submit(self, jobs: list[dict[str, Any]]) -> None: ...

    def results(self, wait: float) -> list[Result]:
        """Results since the last call; waits at most ``wait`` seconds for the first."""
        ...


@dataclass
class OneByOne:
    """Runs jobs in this process, one after the other."""

    window: int = 1
    jobs: deque[dict[str, Any]] = field(default_factory=deque)

    def submit(self, jobs: list[dict[str, Any]]) -> None:
        self.jobs.extend(jobs)

    def results(self, wait: float) -> list[Result]:
        if not self.jobs:
            time.sleep(wait)
            return []
        return [run_cell(self.jobs.popleft())]


def run_cells(
    pool: Pool, cells: Sequence[Cell], how: How, report: Callable[[Result, int], None], poll: float = 1.0
) -> dict[str, Result]:
    """Run the cells that are not finished, each after the fusion stage that it needs.

    Args:
        pool: of workers.
        cells: those to run; a fusion stage that is not among them must be finished.
        how: see :class:`How`.
        report: called with each result that is not "busy", and the number of cells left.
        poll: seconds between two looks at cells that another sweep runs.

    Returns:
        name -> result of every cell that was not finished; one whose fusion stage failed is "failed".
    """
    root, common, watch = Path(how.folder), asdict(how), Watch(how.stale)
    finished = names(root / CELLS)
    todo = {c.name: c for c in cells}
    todo = {name: c for name, c in todo.items() if name not in finished}
    waiting: dict[str, list[str]] = {}
    for name, cell in todo.items():
        if cell.needs in todo:
            waiting.setdefault(cell.needs, []).append(name)
    held = {name for names_ in waiting.values() for name in names_}
    ready = deque((name, -1) for name in todo if name not in held)
    busy: set[str] = set()
    results: dict[str, Result] = {}
    running, looked = 0, time.monotonic()

    def close(result: Result) -> None:
        results[result["name"]] = result
        report(result, len(todo) - len(results))
        for name in waiting.pop(result["name"], ()):
            if result["state"] == "done":
                ready.append((name, -1))
            else:
                error = f"its fusion stage failed: {result['error']}"
                close(result_of(name, "failed", error))

    while len(results) < len(todo):
        batch = [ready.popleft() for _ in range(min(len(ready), pool.window - running))]
        if batch:
            jobs = ({"name": n, "settings": dict(todo[n].settings), "needs": todo[n].needs} for n, _ in batch)
            pool.submit([j | {"replaceable": r, "how": common} for j, (_, r) in zip(jobs, batch, strict=True)])
            running += len(batch)
        for result in pool.results(poll):
            running -= 1
            if result["state"] == "busy":
                busy.add(result["name"])
            else:
                close(result)
        if busy and time.monotonic() - looked > poll:
            looked = time.monotonic()
            for name in sorted(busy):
                if (root / CELLS / name).exists():
                    close(result_of(name))
                elif (n := watch.free(root / WORK / name)) > -2:
                    ready.append((name, n))
                else:
                    continue
                busy.remove(name)
    return results


def names(folder: Path) -> set[str]:
    """Names in a folder; empty if there is none."""
    with suppress(FileNotFoundError):
        return set(os.listdir(folder))
    return set()


@contextmanager
def pool_of(workers: int = 0, scheduler: str = "", scheduler_file: str = "") -> Iterator[Pool]:
    """A pool: this process, N worker processes on this machine, or the workers of a running scheduler.

    Raises:
        UserError: the extra is not installed, or the scheduler does not answer.
    """
    if workers < 0 or sum(map(bool, (workers, scheduler, scheduler_file))) > 1:
        raise UserError(f"expected one of --workers >= 1, --scheduler and --scheduler-file, got {workers} workers"
                        f" {scheduler} {scheduler_file}")  # fmt: skip
    if not (workers or scheduler or scheduler_file):
        try:
            yield OneByOne()
        finally:
            close_servers()
        return
    try:
        from imder_runs.dask_pool import connected
    except ImportError:
        raise UserError("workers need Dask: pip install 'imder-kit[cluster]', or leave the option out") from None
    with connected(workers, scheduler, scheduler_file) as pool:
        yield pool
