"""What the command line shows while a notebook runs: a bar in a terminal, plain lines elsewhere."""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
from tqdm import tqdm


@contextmanager
def progress_shown(executed: Path, models: Path, every: float = 2.0) -> Iterator[None]:
    """Inside the block, show the running cell and the newest epoch of each training, looked up every few seconds.

    Args:
        executed: the executed notebook, which papermill writes at the start of each cell.
        models: folder of trainings.
        every: seconds.
    """
    begun, done = time.time(), threading.Event()
    seen = newest_epochs(models)  # epochs of before are not repeated
    bar = tqdm(disable=not sys.stdout.isatty(), file=sys.stdout, leave=False, unit="cell")

    def watch() -> None:
        while not done.wait(every):
            cell = running_cell(executed) if executed.is_file() and executed.stat().st_mtime >= begun else None
            if cell:
                bar.n, bar.total = cell[0] - 1, cell[1]
                bar.set_description(cell[2], refresh=False)
            lines = [f"  cell {cell[0]} of {cell[1]}: {cell[2]}"] if cell else []
            epochs = [line for line in newest_epochs(models) if line not in seen]
            for line in [line for line in lines + epochs if line not in seen]:
                seen.append(line)
                if bar.disable:
                    print(line, flush=True)
            if epochs:
                bar.set_postfix_str(epochs[-1].strip(), refresh=False)
            bar.refresh()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        bar.close()


def running_cell(executed: Path) -> tuple[int, int, str] | None:
    """Number of the running code cell from 1, number of code cells, and the heading above the cell."""
    heading, count, found = "", 0, None
    with suppress(OSError, ValueError, KeyError, TypeError):  # not there yet, or being written
        for cell in json.loads(executed.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] != "code":
                lines = "".join(cell["source"]).splitlines()
                heading = next((line.strip("# ") for line in lines if line.startswith("#")), heading)
                continue
            count += 1
            if cell["metadata"].get("papermill", {}).get("status") == "running":
                found = count, heading
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
