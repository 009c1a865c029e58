"""A metric stands with its interval, a row a method, in the order that the table has."""

import pandas as pd

from imder_course.interval_table import with_intervals


def test_rows_and_signs():
    rows = [
        {"method": m, "metric": k, "value": v, "low": v - 0.1, "high": v + 0.1}
        for m, v in (("second", 0.5), ("first", -0.25))
        for k in ("corr", "mse")
    ]
    table = with_intervals(pd.DataFrame(rows), ["mse"], "+.2f")
    assert table.to_dict() == {"mse": {"second": "+0.50 (+0.40 to +0.60)", "first": "-0.25 (-0.35 to -0.15)"}}
    assert list(table.index) == ["second", "first"]
