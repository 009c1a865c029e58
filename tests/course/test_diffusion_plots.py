"""Figures of the diffusion notebooks show the given numbers."""

import matplotlib
import numpy as np
import pandas as pd

from imder_course import diffusion_plots

matplotlib.use("agg")


def test_metrics_by_row_shows_values_and_the_ideal():
    values = {"ideal": 0.9, "first": 0.1, "second": 0.5}
    rows = [{"row": k, "metric": "corr", "value": v, "low": v - 0.05, "high": v + 0.05} for k, v in values.items()]
    figure = diffusion_plots.metrics_by_row(pd.DataFrame(rows), {"corr": "title"}, "ideal", ["second", "first"])
    dashed, points = figure.axes[0].lines[:2]
    assert list(dashed.get_xdata()) == [0.9, 0.9]
    assert list(points.get_xdata()) == [0.5, 0.1]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["second", "first"]


def test_quality_against_calls_has_one_line_per_sampler():
    rows = [
        {"sampler": s, "calls": n, "metric": "error", "value": 1 / n, "low": 0.9 / n, "high": 1.1 / n}
        for s in ("em", "heun")
        for n in (20, 5, 10)
    ]
    figure = diffusion_plots.quality_against_calls(pd.DataFrame(rows), {"error": "title"}, {"error": 0.07}, log=True)
    line = figure.axes[0].containers[0].lines[0]
    np.testing.assert_allclose(line.get_xydata(), [[5, 0.2], [10, 0.1], [20, 0.05]])
    assert [t.get_text() for t in figure.axes[0].get_legend().get_texts()] == ["em", "heun"]
    table = pd.DataFrame(rows).drop(columns=["low", "high"])
    figure = diffusion_plots.quality_against_calls(table, {"error": "title"}, {})
    np.testing.assert_allclose(figure.axes[0].containers[0].lines[0].get_xydata(), line.get_xydata())


def test_luck_of_the_mask_with_and_without_variation():
    figure = diffusion_plots.luck_of_the_mask(np.ones(3), np.ones(3), "share", "error")
    assert len(figure.axes[0].lines) == 0  # no line through a single point
    figure = diffusion_plots.luck_of_the_mask(np.array([0.0, 1.0]), np.array([2.0, 1.0]), "share", "error")
    np.testing.assert_allclose(figure.axes[0].lines[0].get_xydata()[[0, -1]], [[0.0, 2.0], [1.0, 1.0]], atol=1e-9)
