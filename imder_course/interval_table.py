"""Tables of metrics with their intervals, as text."""

from collections.abc import Sequence

import pandas as pd


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
