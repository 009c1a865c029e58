"""What a sweep has come to: state, tidy rows, tables beside published results, and comparison with another sweep."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from imder_lib.errors import UserError
from imder_lib.experiment.training import BEST_EPOCH
from imder_lib.files import write_text
from imder_runs.attempt import CELLS, ERROR, WORK
from imder_runs.cells import METRICS, Cell
from imder_runs.engine import names
from imder_runs.locks import STALE, gone, newest
from imder_runs.tables import beside_published, interval, save_table

PLAN = "plan.json"  # of the last grid that was swept in a folder
SAMPLE = 200  # finished cells whose seconds give an estimate
COMPARED_METRICS = ("acc2", "f1", "acc7", "mae", "corr", "acc", "f1_weighted", "f1_macro")
T = TypeVar("T")
KEY = ("dataset", "recipe", "recoverer", "varied", "protocol", "case")  # of a row, beside seed and method
TEXTS = {*KEY, "method"}  # its columns that are no numbers


def read_plan(folder: Path) -> list[Cell]:
    """The cells of the last grid that was swept in a folder."""
    with suppress(OSError, ValueError, TypeError, RecursionError):
        cells = [Cell(**c) for c in json.loads((folder / PLAN).read_text(encoding="utf-8"))]
        if all([type(x) for x in vars(c).values()] == [str, dict, str] for c in cells):
            return cells
    raise UserError(f"{folder} holds no sweep: expected a folder that imder sweep has written")


def write_plan(folder: Path, cells: Sequence[Cell]) -> None:
    content = [{"label": c.label, "settings": c.settings, "needs": c.needs} for c in cells]
    write_text(folder / PLAN, json.dumps(content))


def _json(path: Path, kind: type[T]) -> T:
    """Content of a JSON file; an empty one if it cannot be read, or holds something else."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, kind) else kind()
    return kind()


def state_of(folder: Path, name: str) -> str:
    """State of a cell that is not finished: "running", "failed" or "left"."""
    work, n = folder / WORK / name, newest(folder / WORK / name)
    with suppress(OSError):
        if n >= 0 and not gone(work, n) and abs(time.time() - (work / f"lock.{n}").stat().st_mtime) < STALE:
            return "running"
    return "failed" if (work / ERROR).exists() else "left"


def status(folder: Path) -> dict[str, Any]:
    """State of a sweep: numbers of cells (done, running, failed, left), names, errors, seconds of what is not done."""
    cells = read_plan(folder)
    finished, begun = names(folder / CELLS), names(folder / WORK)
    states = {c.name: "done" if c.name in finished else "left" for c in cells}
    states |= {name: state_of(folder, name) for name in begun & states.keys() - finished}
    count = Counter(states.values())
    failed = [{"name": n} | _json(folder / WORK / n / ERROR, dict) for n, s in states.items() if s == "failed"]
    open_ = [c for c in cells if states[c.name] != "done"]
    return {
        "folder": str(folder), "cells": len(cells), **{s: count[s] for s in ("done", "running", "failed", "left")},
        "running_names": [n for n, s in states.items() if s == "running"], "failures": failed,
        "estimated_cell_seconds": _seconds(folder, open_, [c for c in cells if c.name in finished]),
    }  # fmt: skip


def _group(cell: Cell) -> str:
    return "-".join(str(cell.settings.get(k)) for k in ("dataset", "profile", "kind", "recipe", "recoverer"))


def _seconds(folder: Path, cells: Sequence[Cell], finished: Sequence[Cell]) -> float | None:
    """Seconds that cells take in all, from finished ones of the same kind; None if there are none to compare with."""
    known: dict[str, list[float]] = defaultdict(list)
    for cell in finished[:SAMPLE]:
        note = _json(folder / CELLS / cell.name / "provenance.json", dict)
        with suppress(TypeError, ValueError, KeyError):  # an earlier version's file, or not ours
            seconds = float(note["seconds"])
            known[_group(cell)].append(seconds)
    groups = Counter(map(_group, cells))
    if any(g not in known for g in groups):
        return None
    return sum(n * sum(known[g]) / len(known[g]) for g, n in groups.items())


def estimate(folder: Path, cells: Sequence[Cell], workers: int) -> str:
    """How long cells take, for a reader."""
    finished, known = names(folder / CELLS), []
    with suppress(UserError):
        known = [c for c in read_plan(folder) if c.name in finished]
    seconds = _seconds(folder, cells, known)
    return "" if not cells or seconds is None else f", about {seconds / workers / 60:.0f} minutes"


def results(folder: Path, cells: Sequence[Cell]) -> pd.DataFrame:
    """Tidy rows of all finished cells: those of :func:`imder_lib.evaluate`, and dataset, recipe, recoverer, varied.

    The rows of a damaged file are left out, see :func:`write_results`.
    """
    return pd.DataFrame([row for rows in _found(folder, cells).values() for row in rows or ()])


def _found(folder: Path, cells: Sequence[Cell]) -> dict[str, list[dict[str, Any]] | None]:
    """Name -> rows of all finished cells; None where the file is damaged."""
    finished = names(folder / CELLS)
    return {c.name: _rows(folder, c) for c in cells if c.name in finished}


def _rows(folder: Path, cell: Cell) -> list[dict[str, Any]] | None:
    """Rows of a finished cell; None if its file is damaged."""
    rows = _json(folder / CELLS / cell.name / METRICS, list)
    own = cell.settings
    given = {"dataset": own.get("data")} | {k: own.get(k) for k in ("recipe", "recoverer", "varied", "seed")}
    try:
        sound = {(r["protocol"], r["case"]) for r in rows} == {(p, str(c)) for p, c in own.get("cases", ())}
        for row in rows:
            sound = sound and isinstance(row["method"], str) and {k: row[k] for k in given} == given
            sound = sound and {type(row[k]) for k in {*row, "realised"} - TEXTS} <= {int, float, type(None)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return rows if sound else None


def write_results(folder: Path, cells: Sequence[Cell]) -> pd.DataFrame:
    """Write results.csv, tables/ beside published results, and tables/missing.csv: cells without results.

    Their state is "running", "failed", "left", or "damaged": remove such a folder, and the next sweep runs it again.
    """
    found = _found(folder, cells)
    table = pd.DataFrame([row for rows in found.values() for row in rows or ()])
    states = {c.name: state_of(folder, c.name) for c in cells if c.name not in found}
    states |= {name: "damaged" for name, rows in found.items() if rows is None}
    missing = [{"cell": name, "state": state} for name, state in states.items()]
    save_table(folder, pd.DataFrame(missing, columns=["cell", "state"]), "missing")
    if table.empty or "protocol" not in table:  # results of another grid stay until this one has some
        return table
    text = table.to_csv(index=False)
    write_text(folder / "results.csv", text)
    old = {*(folder / "tables").glob("05_paper_*")}
    save_table(folder, table, "05_paper_all", BEST_EPOCH, text)
    new = {"05_paper_all"}
    several = table["dataset"].nunique() > 1
    scale = {c.settings["data"]: c.settings["sentiment"] for c in cells}
    for (dataset, recipe, recoverer, varied), part in table.groupby(["dataset", "recipe", "recoverer", "varied"]):
        own = [dataset] if several else []
        own += [recipe] if recoverer == {"staged": "kit", "released": "released"}[recipe] else [recipe, recoverer]
        for protocol in part["protocol"].unique():
            shown = beside_published(part, dataset, protocol, sentiment=scale[dataset])
            if not shown.empty:
                name = "_".join(["05_paper", protocol, *own, *([varied] if varied else [])])
                save_table(folder, shown, name, BEST_EPOCH)
                new.add(name)
    for path in old:
        if path.stem not in new:
            path.unlink(missing_ok=True)  # of another grid
    return table


def compare(a: Path, b: Path) -> pd.DataFrame:
    """Differences B - A of what two sweeps share, paired by seed: one row per metric and case.

    Columns: those of :data:`KEY`, metric, seeds, a, b (means), difference, low, high (95 % interval over seeds).

    Raises:
        UserError: a folder holds no sweep, or they share no case and seed.
    """
    both = []
    for folder in (a, b):
        table = results(folder, read_plan(folder))
        if table.empty or "method" not in table:
            raise UserError(f"{folder} has no model that is trained and tested: imder status {folder} says what it has")
        both.append(table[table["method"] == "imder"].set_index([*KEY, "seed"]))
    shared = both[0].index.intersection(both[1].index)
    if shared.empty:
        raise UserError(f"{a} and {b} share no cell: expected the same data, recoverers, cases and seeds")
    out = []
    for metric in [m for m in COMPARED_METRICS if m in both[0] and m in both[1]]:
        pair = pd.DataFrame({"a": both[0].loc[shared, metric], "b": both[1].loc[shared, metric]}).astype(float).dropna()
        for key, part in pair.groupby(level=list(KEY), sort=False):
            mean, _, low, high = interval(part["b"] - part["a"])
            head = dict(zip(KEY, key, strict=True)) | {"metric": metric, "seeds": len(part)}
            out.append(
                head | {"a": part["a"].mean(), "b": part["b"].mean(), "difference": mean, "low": low, "high": high}
            )
    return pd.DataFrame(out)
