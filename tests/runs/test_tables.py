"""Result tables: published numbers appear for their own data and cases only."""

import pandas as pd
import pytest

from imder_course.interval_table import metric_table
from imder_lib.config import WIDTHS
from imder_lib.data.missing import RATES, patterns
from imder_lib.data.mmsa import MODALITIES
from imder_runs.tables import beside_published, pattern_letters, published

FIXED = ["text", "audio", "vision", "text+audio", "text+vision", "audio+vision", "text+audio+vision"]


def results(protocol, cases, seeds=(1, 2)):
    """Synthetic results: row i of seed s has ACC2 (i + s) / 100."""
    rows = []
    for method, shift in (("imder", 0.0), ("zero", 0.5)):
        for i, case in enumerate(cases):
            for seed in seeds:
                value = (i + seed) / 100 + shift
                numbers = {"acc2": value, "f1": value, "acc7": value, "mae": value, "corr": value}
                head = {"protocol": protocol, "case": case, "rate": 0.1 * i, "realised": 0.1 * i + seed / 1e3}
                rows.append(head | {"method": method, "seed": seed} | numbers)
    return pd.DataFrame(rows)


def test_letters_of_patterns():
    assert [pattern_letters(p) for p in FIXED] == ["l", "a", "v", "la", "lv", "va", "lva"]
    assert pattern_letters("vision+audio") == "va"  # the order of the published letters, not of the names
    assert set(FIXED) == {"+".join(p) for p in patterns(MODALITIES)}


@pytest.mark.parametrize("name", WIDTHS)
def test_published_rows_have_sources_and_known_cases(name):
    table = published(name)
    assert set(table["dataset"]) == {name}
    assert table["source"].str.len().min() > 0
    fixed, random = (table[table["protocol"] == p] for p in ("fixed", "random"))
    assert set(fixed["case"]) <= {pattern_letters(p) for p in FIXED}
    assert set(random["case"].astype(float)) <= set(RATES)
    assert ((table[["acc2", "f1", "acc7"]] > 1) | table[["acc2", "f1", "acc7"]].isna()).all(axis=None)  # percent


@pytest.mark.parametrize("name", ["synthetic", "mosi (file)", "mosi_utt", "digits", ""])
def test_other_data_have_no_published_results(name):
    assert published(name).empty
    for protocol, cases in (("fixed", FIXED), ("random", ["0.0", "0.1"])):
        table = beside_published(results(protocol, cases), name, protocol)
        assert table["published"].isna().all()
        assert set(table["method"]) == set(table["source"]) == {""}


def test_fixed_rows_beside_published_rows():
    table = beside_published(results("fixed", FIXED), "mosei", "fixed")
    paper = published("mosei").query("protocol == 'fixed' and method == 'IMDer'").set_index("case")
    assert set(paper.index) == {"l", "a", "v", "la", "lv", "va", "lva"}
    found = table[table["method"] == "IMDer"].set_index(["metric", "case"])
    for i, pattern in enumerate(FIXED):
        row = found.loc["acc2", pattern]
        assert row["ours"] == pytest.approx(i + 1.5)  # mean of two seeds, in percent, of method "imder" only
        assert row["published"] == paper.loc[pattern_letters(pattern), "acc2"]
    mae = table[table["metric"] == "mae"].drop_duplicates("case").set_index("case")
    assert mae.loc["audio", "ours"] == pytest.approx(0.025)  # no percentage
    assert set(table["method"]) == {"IMDer", "IMDer (re-run)"}  # no other published method


def test_random_rows_beside_published_rows():
    table = beside_published(results("random", ["0.0", "0.1", "0.7"]), "mosi", "random")
    paper = published("mosi").query("protocol == 'random' and method == 'IMDer'")
    paper = paper.set_index(paper["case"].astype(float))
    found = table[(table["method"] == "IMDer") & (table["metric"] == "f1")].set_index("case")
    assert list(found.index) == ["0.0", "0.1", "0.7"]
    for i, rate in enumerate(found.index):
        assert found.loc[rate, "ours"] == pytest.approx(i + 1.5)
        assert found.loc[rate, "published"] == paper.loc[float(rate), "f1"]


def test_a_table_without_method_imder_is_empty():
    table = results("fixed", FIXED)
    assert beside_published(table[table["method"] == "zero"], "mosei", "fixed").empty
    assert beside_published(table, "mosei", "random").empty


def test_metric_table_has_one_row_per_case_and_one_column_per_method():
    one = metric_table(results("fixed", FIXED, seeds=[1]), "fixed", "acc2")
    assert list(one.columns) == ["case", "rate", "realised", "imder", "zero"]
    assert list(one["case"]) == FIXED
    assert (one["imder"][3], one["zero"][3]) == ("0.040", "0.540")
    two = metric_table(results("fixed", FIXED), "fixed", "acc2")
    assert two["imder"][3] == "0.045 ± 0.007"
    assert two["realised"][3] == "0.3015"
