"""Tables of metrics, as text."""

from collections.abc import Sequence

import pandas as pd

from imder_course.style import METHODS


def with_intervals(table: pd.DataFrame, metrics: Sequence[str], form: str = ".3f") -> pd.DataFrame:
    """ "value (low to high)" of each metric, a row a method, in the order of the table.

    Args:
        table: columns method, metric, value, low, high.
        metrics: the columns of the result.
        form: of each number; "+.3f" for differences.
    """
    numbers = table[["value", "low", "high"]].itertuples(index=False)
    text = [f"{value:{form}} ({low:{form}} to {high:{form}})" for value, low, high in numbers]
    wide = table.assign(text=text).pivot(index="method", columns="metric", values="text")
    return wide.loc[table["method"].unique(), list(metrics)].rename_axis(columns=None)


def metric_table(table: pd.DataFrame, protocol: str, metric: str) -> pd.DataFrame:
    """Table of one metric under one protocol: one row per case with nominal and realised rate, one column per method.

    Entries for several seeds are "mean ± standard deviation". Means are rounded as pandas rounds other tables.
    """
    rows = []
    for case, group in table[table["protocol"] == protocol].groupby("case", sort=False):
        row = {"case": case, "rate": f"{group['rate'].iloc[0]:.3g}", "realised": f"{group['realised'].mean():.4f}"}
        for method in METHODS:
            values = group.loc[group["method"] == method, metric]
            if len(values):
                row[method] = f"{values.mean().round(3):.3f}" + (f" ± {values.std():.3f}" if len(values) > 1 else "")
        rows.append(row)
    return pd.DataFrame(rows)
