"""Tables for people: methods in columns, conditions in rows, published numbers beside ours where they belong."""

from importlib.resources import files
from typing import IO, cast

import pandas as pd

from imder_lib.config import WIDTHS
from imder_lib.runs.setup import mean_and_std

LETTERS = {"text": "l", "vision": "v", "audio": "a"}  # of the published tables, in their order
METHODS = ("bayes", "imder", "mean", "zero", "constant")


def metric_table(table: pd.DataFrame, protocol: str, metric: str) -> pd.DataFrame:
    """One metric under one protocol: a row for each condition with nominal and realised rate, a column for each method.

    Several seeds become "mean ± standard deviation".
    """
    part = table[table["protocol"] == protocol]
    rows = []
    for condition, group in part.groupby("condition", sort=False):
        row = {"condition": condition, "rate": f"{group['rate'].iloc[0]:.3g}"}
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
        table = pd.read_csv(cast("IO[str]", file), dtype={"condition": str})
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
        ours["key"] = ours["condition"].map(pattern_letters)
        theirs = theirs.assign(key=theirs["condition"])
    else:
        ours["key"] = ours["condition"].astype(float)
        theirs = theirs.assign(key=theirs["condition"].astype(float))
    percent = ["acc2", "f1", "acc7"]
    mean = ours.groupby("key", sort=False)[["realised", *percent, "mae", "corr"]].mean().reset_index()
    mean[percent] *= 100
    mean = mean.rename(columns={k: f"ours_{k}" for k in (*percent, "mae", "corr")})
    columns = ["key", "method", *percent, "mae", "corr", "source"]
    return mean.merge(theirs[columns], on="key", how="left").rename(columns={"key": "condition"})
