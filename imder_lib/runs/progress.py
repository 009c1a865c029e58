"""Progress of a training that runs in another process: read from the histories that it writes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd


@contextmanager
def progress_shown(folder: Path, every: float = 5.0) -> Iterator[None]:
    """Inside the block, print a line for the newest epoch of each training below a folder.

    Args:
        folder: of the run; trainers write history.csv below it after every epoch.
        every: seconds between two looks.
    """
    done, seen = threading.Event(), {path: len(_rows(path)) for path in folder.rglob("history.csv")}

    def follow() -> None:
        while not done.wait(every):
            show(folder, seen)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def show(folder: Path, seen: dict[Path, int]) -> None:
    """Print the newest epoch of each history that has grown since ``seen``, and update it."""
    for path in sorted(folder.rglob("history.csv")):
        rows = _rows(path)
        if len(rows) > seen.get(path, 0):
            last, name = rows.iloc[-1], path.parent.relative_to(folder)
            text = f"{last['stage']} epoch {last['epoch']}, valid {last['valid']:.4f}, {last['seconds']:.1f} s"
            print(f"  {name}: {text}", flush=True)
        seen[path] = len(rows)


def _rows(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (OSError, ValueError):  # not there yet, or a stage without epochs
        return pd.DataFrame()
