"""What a run found, for the top of its page: a table and a sentence for fixed patterns and for random rates."""

from pathlib import Path

import numpy as np
import pandas as pd

from imder_lib.errors import UserError
from imder_runs.tables import METHOD_NAMES, METRIC_NAMES, interval

TITLES = {"fixed": ("Fixed patterns", "available"), "random": ("Random missing rates", "nominal rate")}
AVERAGES = {"fixed": "the {} incomplete patterns", "random": "the {} rates above 0"}


def read_results(folder: Path) -> pd.DataFrame:
    """Rows of :func:`imder_lib.evaluate`: the grid's, then those of methods that only notebook 05 has; may be empty."""
    places = {name: folder / "tables" / f"05_{name}.csv" for name in ("paper_all", "all_metrics")}
    grid, notebook = (_rows(path, ["recipe"] if name == "paper_all" else []) for name, path in places.items())
    released = grid["recipe"] == "released"
    grid.loc[released & (grid["method"] == "imder"), "method"] = "released"
    if not released.all():  # the fills of both recipes' fusions have one name
        grid = grid[~released | (grid["method"] == "released")]
    parts = [part for part in (grid, notebook[~notebook["method"].isin(grid["method"])]) if len(part)]
    return pd.concat(parts) if parts else grid


def _rows(path: Path, more: list[str]) -> pd.DataFrame:
    """Rows of one file, with the columns that a headline needs and ``more``; none if there is no file."""
    none = pd.DataFrame(columns=["method", "recipe"])
    if not path.is_file():
        return none
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(("case", "method", "protocol"), str))
        table = table.astype({"seed": int} | {m: float for m in METRIC_NAMES if m in table}) if len(table) else none
        damaged = len(table) and table[["case", "method", "protocol", *more]].isna().any(axis=None)
        if len(table):
            pd.to_numeric(table.loc[table["protocol"] == "random", "case"])  # raises if a rate is no number
    except (OSError, KeyError, ValueError, TypeError):
        damaged = True
    if damaged:
        raise UserError(f"{path} is damaged: remove it, and make the tables again")
    return table


def headline(table: pd.DataFrame, protocol: str, metric: str) -> dict[str, object]:
    """Title, head, rows, sentence and what the average is over, of one protocol; empty without results of IMDer.

    A row is a case, the last one an average: its name, and the cells (text, best) of all methods. A text is the mean
    over seeds, "± standard deviation" if there are several.
    """
    if table.empty or metric not in table:
        return {}
    table = table[table["protocol"] == protocol].dropna(subset=metric)
    cases, size = list(table["case"].unique()), table["case"].str.count(r"\+").max()
    part = [c for c in cases if (c.count("+") < size if protocol == "fixed" else float(c) > 0)]
    methods = sorted((m for m in METHOD_NAMES if (table["method"] == m).any()), key=lambda m: m == "bayes")
    if not part or not methods or methods[0] not in ("imder", "released"):
        return {}
    over, rows = AVERAGES[protocol].format(len(part)), []
    for name, members in {**{c: [c] for c in cases}, f"average of {over}": part}.items():
        seeds = table[table["case"].isin(members)].groupby(["method", "seed"])[metric].mean()
        found = {m: interval(seeds[m]) for m in methods if m in seeds}
        best = best_methods({m: numbers for m, numbers in found.items() if m != "bayes"}, metric == "mae")
        texts = {m: f"{mean:.3f}" + ("" if np.isnan(std) else f" ± {std:.3f}") for m, (mean, std, *_) in found.items()}
        rows.append((name, [(texts.get(m, ""), m in best) for m in methods]))
    own = methods[0]
    if own not in found:  # it has complete cases alone
        return {}
    mean, _, low, high = found[own]  # of the last row, the average
    sentence = f"Averaged over {over}, {METHOD_NAMES[own]} has {METRIC_NAMES[metric]} {mean:.3f}"
    sentence += "" if np.isnan(low) else f" (95 % interval over seeds {low:.3f} to {high:.3f})"
    if others := {m: numbers[0] for m, numbers in found.items() if m not in (own, "bayes")}:
        first = (min if metric == "mae" else max)(others, key=others.get)
        sentence += f"; the best other method, {METHOD_NAMES[first]}, has {others[first]:.3f}"
    sentence += f"; the Bayes limit is {found['bayes'][0]:.3f}" if "bayes" in found else ""
    title, named = TITLES[protocol]
    head = [named, *(METHOD_NAMES[m] for m in methods)]
    title = f"{title}: {METRIC_NAMES[metric]}"
    return {"title": title, "head": head, "rows": rows, "sentence": sentence, "over": ", ".join(part)}


def best_methods(found: dict[str, tuple[float, float, float, float]], lowest: bool) -> list[str]:
    """The method of the best mean, and its equals; none if its interval overlaps with that of a lesser method.

    Args:
        found: method -> :func:`imder_runs.tables.interval`; without one (a single seed) it has length 0.
        lowest: the lowest mean is the best.
    """
    sign = -1 if lowest else 1
    ends = {
        m: sorted(sign * (mean if np.isnan(x) else x) for x in (low, high)) for m, (mean, _, low, high) in found.items()
    }
    top = max(sign * numbers[0] for numbers in found.values())
    best = [m for m, numbers in found.items() if np.isclose(sign * numbers[0], top)]
    clear = all(ends[m][1] < ends[b][0] for m in found if m not in best for b in best)
    return best if clear else []
