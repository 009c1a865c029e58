"""The page of a run: what it found, valid links, escaped text, tables, figures and provenance."""

import json
from html.parser import HTMLParser

import nbformat
import pandas as pd
import pytest
from matplotlib.figure import Figure

from imder_lib.experiment.training import BEST_EPOCH
from imder_runs import report
from imder_runs.headline import best_methods, headline, read_results
from imder_runs.report import write_report
from imder_runs.setup import Run
from imder_runs.tables import LONGEST, save_table

PROVENANCE = {"data": "<b>mine</b>", "profile": "quick", "seeds": [1, 2], "device": "cpu", "seconds": 61.4,
              "notes": ["Synthetic & so on"], "command": "imder --out '<script>alert(2)</script>'"}  # fmt: skip
CASES = ["text", "<script>alert(0)</script>", "text+<script>alert(0)</script>"]


def results(values, seeds=(1,), protocol="fixed", cases=CASES):
    """Rows of evaluate: method -> ACC2 of every case and seed, with .01 more for each further seed."""
    rows = [
        {
            "protocol": protocol,
            "case": case,
            "method": method,
            "seed": seed,
            "acc2": value + 0.01 * i,
            "acc2_has0": value,
        }
        for method, value in values.items()
        for case in cases
        for i, seed in enumerate(seeds)
    ]
    return pd.DataFrame(rows)


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data.strip())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def folder(tmp_path):
    run = Run(data=None, profile="quick", seeds=[1], folder=tmp_path)
    for name in ("01_data", "05_missing_rate_tables"):
        (tmp_path / "notebooks").mkdir(exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(), tmp_path / "notebooks" / f"{name}.ipynb")
    run.save_figure(Figure(figsize=(1, 1)), "01_1_labels", 'a caption with "quotes" & <tags>')
    for metric in ("mae", "corr", "acc2"):
        table = pd.DataFrame(
            {
                "case": ["<script>alert(1)</script>", "text"],
                "rate": [2 / 3, 0.5],
                "imder": ["0.500 ± 0.010", "0.25"],
            }
        )
        run.save_table(table, f"05_fixed_{metric}")
    run.save_figure(Figure(figsize=(1, 1)), "05_2_random_acc2", "ACC2 against the rate")
    both = [results({"imder": 0.7, "zero": 0.6, "bayes": 0.9}, protocol=protocol, cases=names)
            for protocol, names in (("fixed", CASES), ("random", [f"{i / 100:g}" for i in range(20)]))]  # fmt: skip
    run.save_table(pd.concat(both).assign(secret="in the file only"), "05_all_metrics")
    run.save_table(both[0].drop(columns="protocol"), "05_calibration")
    return tmp_path


@pytest.fixture
def page(folder):
    path = write_report(folder, PROVENANCE, "acc2")
    assert path == folder / "index.html"
    return Page(path.read_text(encoding="utf-8"))


def test_links_exist_on_disk_and_cover_all_files(page, folder):
    links = [a["href"] for a in page.all("a")]
    for link in links:
        assert (folder / link).is_file(), link
    files = {str(p.relative_to(folder)) for kind in ("tables", "notebooks") for p in (folder / kind).iterdir()}
    assert files <= set(links)  # all files of the run are linked
    assert not any("src" in a and not a["src"].startswith("data:") for _, a in page.tags)


def test_a_long_table_is_linked_and_not_shown(page):
    assert "all metrics" in page.text
    assert any(text.startswith("69 rows, not shown") for text in page.text)
    assert "in the file only" not in page.text
    assert len(page.all("table")) == 6  # two of the headline


def test_tables_are_in_published_order_and_rounded(page):
    heads = [t for t in page.text if t.startswith("fixed ")]
    assert heads == ["fixed ACC2 (non-zero labels)", "fixed MAE (units of the label)", "fixed Corr (Pearson)"]
    assert not any("acc2" in text or text in ("imder", "bayes") for text in page.text)  # names of methods and metrics
    assert page.text.count("0.6667") == page.text.count("0.5000") == page.text.count("0.25") == 3
    assert page.text.count("0.500 ± 0.010") == 3


def test_each_table_of_a_model_shows_the_rule_of_the_best_epoch_and_averages_say_over_what(page):
    rates = ", ".join(f"{i / 100:g}" for i in range(1, 20))
    shown = [text for text in page.text if text.endswith(BEST_EPOCH)]
    assert shown[:2] == [f"The average is over {x}. {BEST_EPOCH}" for x in (", ".join(CASES[:2]), rates)]
    assert shown[2:] == [BEST_EPOCH] * 5


def test_text_from_files_is_escaped(page):
    assert page.all("script") == []
    for i in (0, 1):
        assert f"<script>alert({i})</script>" in page.text
    assert any("<script>alert(2)</script>" in text for text in page.text)
    assert "IMDer kit: <b>mine</b>" in page.text
    assert "Synthetic & so on" in page.text


def test_figures_have_captions_and_alternative_text(page):
    first, image = page.all("img")
    assert first["alt"] == "ACC2 against the rate"  # the headline's, shown once
    assert image["alt"] == 'a caption with "quotes" & <tags>'
    assert image["src"].startswith("data:image/png;base64,")
    assert image["alt"] in page.text


def test_figures_stand_in_the_order_of_their_numbers(tmp_path):
    (tmp_path / "figures").mkdir()
    names = ["03_1_forward", "03_2_reverse", "03_9_accuracy", "03_10_confusion"]
    for name in names:
        (tmp_path / "figures" / f"{name}.png").write_bytes(b"")
        (tmp_path / "figures" / f"{name}.json").write_text('{"caption": ""}')
    assert [figure["name"] for figure in report._figures(tmp_path, "03")] == names


def test_provenance_is_on_the_page_and_in_a_file(page, folder):
    assert json.loads((folder / "provenance.json").read_text()) == PROVENANCE
    assert any(json.loads(text) == PROVENANCE for text in page.text if text.startswith("{"))


def test_the_page_opens_with_what_the_run_found_and_its_sections_fold(page):
    order = [tag for tag, _ in page.tags if tag in ("table", "details", "img")]
    assert order[:4] == ["table", "table", "img", "details"]
    assert len(page.all("details")) == 3  # Data, Missing-rate tables, provenance
    assert not any("open" in attributes for attributes in page.all("details"))
    averages = [text for text in page.text if text.startswith("Averaged over ")]
    end = (
        "IMDer has ACC2 (non-zero labels) 0.700; the best other method, zero fill, has 0.600; the Bayes limit is 0.900."
    )
    assert averages == [f"Averaged over the 2 incomplete patterns, {end}", f"Averaged over the 19 rates above 0, {end}"]


def test_a_very_long_table_is_cut_in_markdown(tmp_path):
    save_table(tmp_path, pd.DataFrame({"x": range(LONGEST + 1)}), "long", "A note.")
    assert len(pd.read_csv(tmp_path / "tables" / "long.csv")) == LONGEST + 1
    lines = (tmp_path / "tables" / "long.md").read_text().splitlines()
    assert lines[-4:] == ["", f"The first {LONGEST} of {LONGEST + 1} rows; long.csv has all.", "", "A note."]
    assert len(lines) == 2 + LONGEST + 4


def test_the_best_value_of_a_row_is_marked():
    found = headline(results({"bayes": 0.9, "imder": 0.7, "zero": 0.7, "mean": 0.6}), "fixed", "acc2")
    assert found["head"] == ["available", "IMDer", "mean fill", "zero fill", "Bayes limit"]
    name, cells = found["rows"][-1]
    assert name == "average of the 2 incomplete patterns"
    assert cells == [("0.700", True), ("0.600", False), ("0.700", True), ("0.900", False)]
    assert headline(results({"zero": 0.6}), "fixed", "acc2") == headline(results({}), "fixed", "acc2") == {}
    assert (
        headline(results({"imder": 0.6}), "fixed", "acc") == headline(results({"imder": 0.6}), "random", "acc2") == {}
    )


def test_with_several_seeds_nothing_is_marked_where_intervals_overlap():
    for zero, marked in ((0.6, True), (0.69, False)):
        _, cells = headline(results({"imder": 0.7, "zero": zero}, seeds=(1, 2, 3)), "fixed", "acc2")["rows"][0]
        assert cells == [("0.710 ± 0.010", marked), (f"{zero + 0.01:.3f} ± 0.010", False)]
    none = float("nan")
    assert best_methods({"imder": (0.7, 0.1, 0.6, 0.8), "zero": (0.65, none, none, none)}, lowest=False) == []
    assert best_methods({"imder": (0.7, 0.1, 0.6, 0.8), "zero": (0.5, none, none, none)}, lowest=True) == ["zero"]


def test_the_grid_comes_first_and_the_notebook_adds_methods(tmp_path):
    run = Run(data=None, profile="full", seeds=[1, 2], folder=tmp_path)
    assert read_results(tmp_path).empty
    grid = [
        results({"imder": v, "zero": v}, seeds=(1, 2)).assign(recipe=r) for r, v in (("staged", 0.7), ("released", 0.6))
    ]
    run.save_table(pd.concat(grid), "05_paper_all")
    run.save_table(results({"imder": 0.1, "dropout": 0.5}), "05_all_metrics")
    table = read_results(tmp_path).groupby("method")["acc2"].agg(["min", "size"])
    assert {m: tuple(row) for m, row in table.iterrows()} == {
        "imder": (0.7, 6), "zero": (0.7, 6), "released": (0.6, 6), "dropout": (0.5, 3)
    }  # fmt: skip
