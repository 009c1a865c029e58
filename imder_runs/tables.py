"""Names of methods and metrics, intervals, and results beside published numbers."""

from pathlib import Path

import numpy as np
import pandas as pd
import scipy

from imder_lib.files import write_text

LONGEST = 2000  # rows of a table in Markdown, which is slow to write and to read
PUBLISHED = Path(__file__).with_name("published_results.csv")
METHOD_NAMES = {
    "bayes": "Bayes limit",
    "imder": "IMDer",
    "released": "IMDer, released rules",
    "network": "network, one pass",
    "regression": "linear regression",
    "dropout": "modality dropout",
    "mean": "mean fill",
    "zero": "zero fill",
    "constant": "constant",
}
METRIC_NAMES = {
    "acc2": "ACC2 (non-zero labels)",
    "f1": "F1 (weighted, non-zero labels)",
    "acc2_has0": "ACC2 (all labels, 0 as positive)",
    "f1_has0": "F1 (weighted, all labels, 0 as positive)",
    "acc5": "ACC5",
    "acc7": "ACC7",
    "acc": "accuracy",
    "f1_weighted": "F1 (weighted by class support)",
    "f1_macro": "macro F1",
    "mae": "MAE (units of the label)",
    "corr": "Corr (Pearson)",
}
LETTERS = {"text": "l", "vision": "v", "audio": "a"}  # pattern letters of the published tables, in their order


def save_table(folder: Path, table: pd.DataFrame, name: str, note: str = "", csv: str | None = None) -> None:
    """Write tables/NAME.csv and .md in a folder; the latter has the first LONGEST rows, and ends with the note.

    ``csv``: content of the former, if it is known.
    """
    write_text(folder / "tables" / f"{name}.csv", table.to_csv(index=False) if csv is None else csv)
    text = table[:LONGEST].to_markdown(index=False, floatfmt=".4g")
    text += f"\n\nThe first {LONGEST} of {len(table)} rows; {name}.csv has all." if len(table) > LONGEST else ""
    text += note and f"\n\n{note}"
    write_text(folder / "tables" / f"{name}.md", text + "\n")


def published(dataset: str) -> pd.DataFrame:
    """Published results of mosi or mosei, with the source of each row; unknown values are blank. Empty for others."""
    table = pd.read_csv(PUBLISHED, dtype={"case": str})
    return table[table["dataset"] == dataset]


def pattern_letters(pattern: str) -> str:
    """Pattern letters as published: "la" for "text+audio"."""
    return "".join(letter for m, letter in LETTERS.items() if m in pattern.split("+"))


def interval(values: pd.Series) -> tuple[float, float, float, float]:
    """Mean, standard deviation and 95 % interval of the mean (Student's t); for one value, the last three are NaN."""
    n, mean, std = len(values), float(values.mean()), float(values.std())
    half = float(scipy.stats.t.ppf(0.975, n - 1)) * std / n**0.5 if n > 1 else np.nan
    return mean, std, mean - half, mean + half


def beside_published(table: pd.DataFrame, dataset: str, protocol: str, *, sentiment: bool = True) -> pd.DataFrame:
    """Results of method "imder" beside published ones: one row per metric, case and published method.

    Columns: metric, case, over (the patterns of an average), realised, seeds, ours, std, low, high (95 % interval over
    seeds), method, published, difference (ours - published), source; unknown values are blank. ACC2, F1 and ACC7 in
    percent. Fixed tables end with the averages over the incomplete patterns and over all. Empty if the table has no
    rows of the method and protocol. Data with classes have accuracy and F1, as shares.

    Args:
        table: rows of :func:`imder_lib.evaluate` for one recipe and any number of seeds.
        protocol: "fixed", "random" and "released" have published results. Those at a rate were measured under the
            authors' masks, "released", and stand beside both.
        sentiment: False: only MAE and correlation.
    """
    kit = table[(table["protocol"] == protocol) & (table["method"] == "imder")]
    if kit.empty:
        return pd.DataFrame()
    percent = [m for m in ("acc2", "f1", "acc7") if sentiment and m in kit]
    kit = kit.assign(case=kit["case"].astype(str), **{metric: 100 * kit[metric] for metric in percent})
    groups: dict[str, list[str]] = {case: [case] for case in kit["case"].unique()}
    if protocol == "fixed":
        size = max(case.count("+") for case in groups)
        incomplete = [case for case in groups if case.count("+") < size]
        groups |= {f"average of {len(incomplete)} incomplete": incomplete, f"average of all {len(groups)}": [*groups]}
    key = {"fixed": pattern_letters, "random": float, "released": float}.get(protocol, str)
    paper = published(dataset)
    measured = "random" if protocol == "released" else protocol
    paper = paper[(paper["protocol"] == measured) & paper["method"].str.startswith("IMDer")]
    paper = paper.assign(key=paper["case"] if protocol == "fixed" else paper["case"].astype(float))
    rows = []
    for metric in (m for m in (*percent, "mae", "corr", "acc", "f1_weighted", "f1_macro") if m in kit):
        for case, members in groups.items():
            part = kit[kit["case"].isin(members)].groupby("seed")[[metric, "realised"]].mean()
            head = {
                "metric": metric,
                "case": case,
                "over": ", ".join(members) if members != [case] else "",
                "realised": part["realised"].mean(),
                "seeds": len(part),
            }
            head |= dict(zip(("ours", "std", "low", "high"), interval(part[metric]), strict=True))
            known = []
            for method, group in paper[paper["key"].isin([key(m) for m in members])].groupby("method", sort=False):
                if len(group) == len(members) and group[metric].notna().all():  # an average needs all members
                    source, value = group["source"].iloc[0], float(group[metric].mean())
                    source = f"mean of {len(group)}: {source}" if len(group) > 1 else source
                    known.append({"method": method, "published": value, "source": source})
            rows += [head | found for found in known or [{"method": "", "published": np.nan, "source": ""}]]
    if not rows:
        return pd.DataFrame()
    out = pd.DataFrame(rows)
    out.insert(out.columns.get_loc("source"), "difference", out["ours"] - out["published"])
    return out
