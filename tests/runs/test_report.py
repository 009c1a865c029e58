"""The page of a run: valid links, escaped text, tables, figures and provenance."""

import json
from html.parser import HTMLParser

import nbformat
import pandas as pd
import pytest
from matplotlib.figure import Figure

from imder_lib.runs.report import write_report
from imder_lib.runs.setup import Run

PROVENANCE = {"data": "<b>mine</b>", "profile": "quick", "seeds": [1, 2], "device": "cpu", "seconds": 61.4,
              "notes": ["Synthetic & so on"]}  # fmt: skip


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
    run.save_table(pd.DataFrame({"row": range(61), "secret": "in the file only"}), "05_all_metrics")
    return tmp_path


@pytest.fixture
def page(folder):
    path = write_report(folder, PROVENANCE)
    assert path == folder / "index.html"
    return Page(path.read_text(encoding="utf-8"))


def test_links_exist_on_disk_and_cover_all_files(page, folder):
    links = [a["href"] for a in page.all("a")]
    ids = {attributes.get("id") for _, attributes in page.tags}
    for link in links:
        assert link[1:] in ids if link.startswith("#") else (folder / link).is_file(), link
    files = {str(p.relative_to(folder)) for kind in ("tables", "notebooks") for p in (folder / kind).iterdir()}
    assert files <= set(links)  # all files of the run are linked
    assert not any("src" in a and not a["src"].startswith("data:") for _, a in page.tags)


def test_a_long_table_is_linked_and_not_shown(page):
    assert "all metrics" in page.text
    assert any(text.startswith("61 rows, not shown") for text in page.text)
    assert "in the file only" not in page.text
    assert len(page.all("table")) == 3


def test_tables_are_in_published_order_and_rounded(page):
    heads = [t for t in page.text if t.startswith("fixed ")]
    assert heads == ["fixed ACC2", "fixed MAE", "fixed CORR"]
    assert page.text.count("0.6667") == page.text.count("0.5000") == page.text.count("0.25") == 3
    assert page.text.count("0.500 ± 0.010") == 3


def test_text_from_files_is_escaped(page):
    assert page.all("script") == []
    assert "<script>alert(1)</script>" in page.text
    assert "IMDer kit: <b>mine</b>" in page.text
    assert "Synthetic & so on" in page.text


def test_figures_have_captions_and_alternative_text(page):
    (image,) = page.all("img")
    assert image["alt"] == 'a caption with "quotes" & <tags>'
    assert image["src"].startswith("data:image/png;base64,")
    assert image["alt"] in page.text


def test_provenance_is_on_the_page_and_in_a_file(page, folder):
    assert json.loads((folder / "provenance.json").read_text()) == PROVENANCE
    assert any(json.loads(text) == PROVENANCE for text in page.text if text.startswith("{"))
