"""What is shown while a notebook runs: a bar in a terminal, plain lines elsewhere."""

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import get_terminal_size

import pandas as pd
from tqdm import tqdm


@contextmanager
def progress_shown(executed: Sequence[Path], models: Path, every: float = 2.0) -> Iterator[None]:
    """Inside the block, show the running cells and the newest epoch of each training, looked up every few seconds.

    ``executed`` are written by papermill at the start of each cell, ``models`` is the folder of trainings.
    """
    begun, done, seen = time.time(), threading.Event(), newest_epochs(models)  # those of before are not repeated
    width = get_terminal_size().columns  # 80 where a terminal does not know its size
    several = len(executed) > 1
    form = "{desc} [{elapsed}]" if several else None  # cells of several notebooks give no time that is left
    shown = sys.stdout.isatty()
    bar = tqdm(disable=not shown, file=sys.stdout, leave=False, unit="cell", ncols=width, bar_format=form)

    def watch() -> None:
        while not done.wait(every):
            lines = []
            for path in executed:
                if cell := running_cell(path, begun):
                    bar.n, bar.total = cell[0] - 1, cell[1]
                    name = f"{path.stem.lstrip('.')}, " if several else ""
                    lines.append("  {}cell {} of {}: {}".format(name, *cell))
            lines += newest_epochs(models)
            for line in [line for line in lines if line not in seen]:
                seen.append(line)
                bar.set_description_str(line.strip(), refresh=False)
                if bar.disable:
                    print(line, flush=True)
            bar.refresh()  # the time passes

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        bar.close()


def say(text: str) -> None:
    """Print a line above the bar, at once."""
    tqdm.write(text)
    sys.stdout.flush()


def running_cell(executed: Path, since: float = 0.0) -> tuple[int, int, str] | None:
    """Number of the running code cell from 1, number of code cells, and the last heading; None in a file of before."""
    heading, count, found = "", 0, None
    with suppress(OSError, ValueError, KeyError):  # not there yet, or being written
        for cell in (
            json.loads(executed.read_text(encoding="utf-8"))["cells"] if executed.stat().st_mtime >= since else ()
        ):
            if cell["cell_type"] == "code":
                count += 1
                if cell["metadata"].get("papermill", {}).get("status") == "running":
                    found = count, heading
            else:
                heads = [line for line in "".join(cell["source"]).splitlines() if line.startswith("#")]
                heading = heads[0].strip("# ") if heads else heading
    return found and (found[0], count, found[1])


def newest_epochs(folder: Path) -> list[str]:
    """One line for the newest epoch of each training below a folder, from the history.csv that trainers write."""
    lines = []
    for path in sorted(folder.rglob("history.csv")):
        with suppress(OSError, ValueError, KeyError, IndexError):  # not there yet, or without epochs
            table = pd.read_csv(path)
            last = table.iloc[-1]
            each = table.loc[(table["stage"] == last["stage"]) & (table["epoch"] > 0), "seconds"].mean()
            left = each * (last["epochs"] - last["epoch"])
            text = f"{last['stage']} epoch {last['epoch']}/{int(last['epochs'])}, valid {last['valid']:.4f}"
            lines.append(f"  {path.parent.relative_to(folder)}: {text}, at most {left:.0f} s left")
    return lines
