"""Tables for people: methods in columns, cases in rows, published numbers beside ours where they belong."""

from importlib.resources import files
from typing import IO, cast

import numpy as np
import pandas as pd
from scipy import stats

from imder_lib.config import WIDTHS
from imder_lib.runs.setup import mean_and_std

LETTERS = {"text": "l", "vision": "v", "audio": "a"}  # of the published tables, in their order
METHODS = ("bayes", "imder", "released", "network", "regression", "dropout", "mean", "zero", "constant")


def metric_table(table: pd.DataFrame, protocol: str, metric: str) -> pd.DataFrame:
    """One metric under one protocol: a row for each case with nominal and realised rate, a column for each method.

    Several seeds become "mean ± standard deviation".
    """
    part = table[table["protocol"] == protocol]
    rows = []
    for case, group in part.groupby("case", sort=False):
        row = {"case": case, "rate": f"{group['rate'].iloc[0]:.3g}"}
        row["realised"] = f"{group['realised'].mean():.4f}"
        for method in METHODS:
            if (group["method"] == method).any():
                row[method] = mean_and_std(group.loc[group["method"] == method, metric])
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


def beside_published(table: pd.DataFrame, dataset: str, protocol: str) -> pd.DataFrame:
    """Ours (method "imder") and the published IMDer rows of one protocol, in percent for ACC2, F1 and ACC7."""
    theirs = published(dataset)
    theirs = theirs[(theirs["protocol"] == protocol) & theirs["method"].str.startswith("IMDer")]
    ours = table[(table["protocol"] == protocol) & (table["method"] == "imder")].copy()
    if theirs.empty or ours.empty:
        return pd.DataFrame()
    if protocol == "fixed":
        ours["key"] = ours["case"].map(pattern_letters)
        theirs = theirs.assign(key=theirs["case"])
    else:
        ours["key"] = ours["case"].astype(float)
        theirs = theirs.assign(key=theirs["case"].astype(float))
    percent = ["acc2", "f1", "acc7"]
    mean = ours.groupby("key", sort=False)[["realised", *percent, "mae", "corr"]].mean().reset_index()
    mean[percent] *= 100
    mean = mean.rename(columns={k: f"ours_{k}" for k in (*percent, "mae", "corr")})
    columns = ["key", "method", *percent, "mae", "corr", "source"]
    return mean.merge(theirs[columns], on="key", how="left").rename(columns={"key": "case"})


def interval(values: pd.Series) -> tuple[float, float, float, float]:
    """Mean, standard deviation and the 95 % interval of the mean (Student's t); NaN beyond the mean of one value."""
    v = np.asarray(values, dtype=float)
    n, mean = len(v), float(v.mean())
    if n < 2:
        return mean, np.nan, np.nan, np.nan
    std = float(v.std(ddof=1))
    half = float(stats.t.ppf(0.975, n - 1)) * std / n**0.5
    return mean, std, mean - half, mean + half


def letters(case: str) -> str:
    """A pattern as published tables write it: text (l), vision (v), audio (a), in this order."""
    names = case.split("+")
    return "".join(LETTERS[m] for m in ("text", "vision", "audio") if m in names)


def paper_table(table: pd.DataFrame, dataset: str, protocol: str, *, sentiment: bool = True) -> pd.DataFrame:
    """Ours and published, a row for each metric and case (and published method).

    Columns: metric, case, realised, seeds, ours, std, low, high (95 % interval over seeds), method, published,
    difference (ours - published), source; blank where not known. ACC2, F1 and ACC7 in percent. Fixed tables end in
    both averages: over the six incomplete patterns, and over all seven.

    Args:
        table: rows of :func:`imder_lib.evaluate` of one recipe, any number of seeds.
        sentiment: False leaves MAE and correlation only.
    """
    ours = table[(table["protocol"] == protocol) & (table["method"] == "imder")].copy()
    if ours.empty:
        return pd.DataFrame()
    percent = ["acc2", "f1", "acc7"] if sentiment else []
    metrics = [*percent, "mae", "corr"]
    ours[percent] *= 100
    ours["case"] = ours["case"].astype(str)
    groups: dict[str, list[str]] = {c: [c] for c in ours["case"].unique()}
    if protocol == "fixed":
        size = max(len(c.split("+")) for c in groups)
        incomplete = [c for c in groups if len(c.split("+")) < size]
        groups |= {
            f"average of {len(incomplete)} incomplete": incomplete,
            f"average of all {len(groups)}": list(groups),
        }
    theirs = published(dataset)
    theirs = theirs[(theirs["protocol"] == protocol) & theirs["method"].str.startswith("IMDer")]
    rows = []
    for metric in metrics:
        for case, members in groups.items():
            part = ours[ours["case"].isin(members)].groupby("seed")[[metric, "realised"]].mean()
            mean, std, low, high = interval(part[metric])
            row = {"metric": metric, "case": case, "realised": part["realised"].mean(), "seeds": len(part)}
            row |= {"ours": mean, "std": std, "low": low, "high": high}
            known = _published(theirs, protocol, members, metric)
            for method, value, source in known or [("", np.nan, "")]:
                rows.append(row | {"method": method, "published": value, "difference": mean - value, "source": source})
    return pd.DataFrame(rows)


def _published(theirs: pd.DataFrame, protocol: str, members: list[str], metric: str) -> list[tuple[str, float, str]]:
    """(method, value, source) of one case, or of an average where every member is published."""
    if protocol == "fixed":
        keys = [letters(c) for c in members]
        column = theirs["case"]
    else:
        keys = [float(c) for c in members]
        column = theirs["case"].astype(float)
    out = []
    for method, part in theirs[column.isin(keys)].groupby("method", sort=False):
        if len(part) == len(keys) and part[metric].notna().all():
            source = part["source"].iloc[0]
            out.append(
                (method, float(part[metric].mean()), f"mean of {len(part)}: {source}" if len(keys) > 1 else source)
            )
    return out
