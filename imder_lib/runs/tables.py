"""Tables for people: methods in columns, cases in rows, published numbers beside ours where they belong."""

from importlib.resources import files
from typing import IO, cast

import numpy as np
import pandas as pd
from scipy import stats

from imder_lib.config import WIDTHS

LETTERS = {"text": "l", "vision": "v", "audio": "a"}  # of the published tables, in their order
METHODS = ("bayes", "imder", "released", "network", "regression", "dropout", "mean", "zero", "constant")


def metric_table(table: pd.DataFrame, protocol: str, metric: str) -> pd.DataFrame:
    """One metric under one protocol: a row for each case with nominal and realised rate, a column for each method.

    Several seeds become "mean ± standard deviation".
    """
    rows = []
    for case, group in table[table["protocol"] == protocol].groupby("case", sort=False):
        row = {"case": case, "rate": f"{group['rate'].iloc[0]:.3g}", "realised": f"{group['realised'].mean():.4f}"}
        for method in METHODS:
            values = group.loc[group["method"] == method, metric]
            if len(values):
                row[method] = f"{values.mean():.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")
        rows.append(row)
    return pd.DataFrame(rows)


def published(dataset: str) -> pd.DataFrame:
    """Published results of a data set with the source of each row; blank where not known.

    Empty for anything but mosi and mosei: published numbers say nothing about other data.
    """
    resource = files("imder_lib.data").joinpath("published_results.csv")
    with resource.open("r", encoding="utf-8") as file:
        table = pd.read_csv(cast("IO[str]", file), dtype={"case": str})
    return table[table["dataset"] == dataset] if dataset in WIDTHS else table.iloc[:0]


def pattern_letters(pattern: str) -> str:
    """The published name of a pattern: "text+audio" is "la"."""
    return "".join(letter for m, letter in LETTERS.items() if m in pattern.split("+"))


def interval(values: pd.Series) -> tuple[float, float, float, float]:
    """Mean, standard deviation and the 95 % interval of the mean (Student's t); NaN beyond the mean of one value."""
    n, mean, std = len(values), float(values.mean()), float(values.std())
    half = float(stats.t.ppf(0.975, n - 1)) * std / n**0.5 if n > 1 else np.nan
    return mean, std, mean - half, mean + half


def beside_published(table: pd.DataFrame, dataset: str, protocol: str, *, sentiment: bool = True) -> pd.DataFrame:
    """Ours and published, a row for each metric and case (and published method).

    Columns: metric, case, realised, seeds, ours, std, low, high (95 % interval over seeds), method, published,
    difference (ours - published), source; blank where not known. ACC2, F1 and ACC7 in percent. Fixed tables end in
    both averages: over the incomplete patterns, and over all.

    Args:
        table: rows of :func:`imder_lib.evaluate` of one recipe, any number of seeds; method "imder" is ours.
        dataset: its name; only mosi and mosei have published numbers.
        protocol: "fixed" or "random".
        sentiment: False leaves MAE and correlation only.

    Returns:
        the table; empty if there are no rows of ours
    """
    ours = table[(table["protocol"] == protocol) & (table["method"] == "imder")]
    if ours.empty:
        return pd.DataFrame()
    percent = ["acc2", "f1", "acc7"] if sentiment else []
    ours = ours.assign(case=ours["case"].astype(str), **{metric: 100 * ours[metric] for metric in percent})
    groups: dict[str, list[str]] = {case: [case] for case in ours["case"].unique()}
    if protocol == "fixed":
        size = max(case.count("+") for case in groups)
        incomplete = [case for case in groups if case.count("+") < size]
        groups |= {f"average of {len(incomplete)} incomplete": incomplete, f"average of all {len(groups)}": [*groups]}
    key = pattern_letters if protocol == "fixed" else float
    theirs = published(dataset)
    theirs = theirs[(theirs["protocol"] == protocol) & theirs["method"].str.startswith("IMDer")]
    theirs = theirs.assign(key=theirs["case"] if protocol == "fixed" else theirs["case"].astype(float))
    rows = []
    for metric in (*percent, "mae", "corr"):
        for case, members in groups.items():
            part = ours[ours["case"].isin(members)].groupby("seed")[[metric, "realised"]].mean()
            head = {"metric": metric, "case": case, "realised": part["realised"].mean(), "seeds": len(part)}
            head |= dict(zip(("ours", "std", "low", "high"), interval(part[metric]), strict=True))
            known = []
            for method, group in theirs[theirs["key"].isin([key(m) for m in members])].groupby("method", sort=False):
                if len(group) == len(members) and group[metric].notna().all():  # an average needs every member
                    source, value = group["source"].iloc[0], float(group[metric].mean())
                    source = f"mean of {len(group)}: {source}" if len(group) > 1 else source
                    known.append({"method": method, "published": value, "source": source})
            rows += [head | found for found in known or [{"method": "", "published": np.nan, "source": ""}]]
    out = pd.DataFrame(rows)
    out.insert(out.columns.get_loc("source"), "difference", out["ours"] - out["published"])
    return out
