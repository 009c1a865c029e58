"""The paper's grid: cells, resuming, and tables beside published results."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from imder_lib import UserError
from imder_lib.cli import main
from imder_lib.data.fake import write_fake
from imder_lib.data.missing import RATES
from imder_lib.profiles import PROFILES
from imder_lib.runs import reproduce as reproduce_module
from imder_lib.runs import sweep as sweep_module
from imder_lib.runs.notebook import check_parameters
from imder_lib.runs.setup import Run
from imder_lib.runs.sweep import Cell, cells, sweep, with_pretrained
from imder_lib.runs.tables import beside_published, interval

MODALITIES = ("text", "audio", "vision")


def a_run(data, folder):
    return Run(data, "smoke", [1], folder, epochs=1, steps=2)


def test_the_grid():
    grid = cells(["staged", "released"], RATES, range(1111, 1120))
    assert len({c.name for c in grid}) == len(grid) == 9 * (1 + 8)
    assert grid[0].name == "staged-all-seed1111"


def test_the_released_models_cover_each_case_once():
    todo = [sweep_module.tested_on(Cell("released", 1, r), RATES, MODALITIES) for r in RATES]
    fixed = [c for t in todo for c in t if c[0] == "fixed"]
    assert len(fixed) == len(set(fixed)) == 7
    assert ("fixed", "audio") in todo[RATES.index(0.7)]  # two of three are missing
    assert ("fixed", "text+vision") in todo[RATES.index(0.3)]
    assert ("fixed", "text+audio+vision") in todo[0]
    assert [c[1] for t in todo for c in t if c[0] == "random"] == list(RATES)
    assert len(sweep_module.tested_on(Cell("staged", 1), RATES, MODALITIES)) == 7 + 8


class Killed(BaseException):
    pass


def test_a_resumed_sweep_does_not_repeat_finished_cells(data, tmp_path, monkeypatch):
    recipes, rates = ["staged", "released"], (0.0, 0.7)
    whole = sweep(with_pretrained(a_run(data, tmp_path / "whole")), recipes, rates)
    trained, original = [], sweep_module.train_cell

    def train_cell(run, cell):
        trained.append(cell.name)
        if len(trained) == 2:
            raise Killed
        return original(run, cell)

    monkeypatch.setattr(sweep_module, "train_cell", train_cell)
    with pytest.raises(Killed):
        sweep(with_pretrained(a_run(data, tmp_path / "cut")), recipes, rates)
    assert len(list((tmp_path / "cut" / "cells").iterdir())) == 1
    monkeypatch.setattr(sweep_module, "pretrain", None)  # stage 1 is not repeated either
    resumed = sweep(with_pretrained(a_run(data, tmp_path / "cut")), recipes, rates)
    assert len(trained) == len(set(trained)) + 1 == 3 + 1  # only the interrupted cell is trained again
    pd.testing.assert_frame_equal(resumed, whole)


def test_sweep_from_the_command_line(tmp_path, monkeypatch, capsys):
    path = write_fake("mosi", tmp_path / "small.pkl", sizes={"train": 24, "valid": 8, "test": 12}, steps=6)
    command = ["imder", "sweep", "--dataset", str(path), "--profile", "smoke", "--out", str(tmp_path / "out")]
    command += ["--epochs", "1", "--steps", "2", "--seeds", "1,2", "--rates", "0.3"]
    monkeypatch.setattr("sys.argv", command)
    main()
    table = pd.read_csv(tmp_path / "out" / "tables" / "05_paper_random_staged.csv")
    row = table[table["metric"] == "acc2"].iloc[0]
    assert (row["case"], row["seeds"]) == (0.3, 2)
    assert row["low"] <= row["ours"] <= row["high"]
    with pytest.raises(SystemExit) as stop:
        main()  # the folder exists
    assert stop.value.code == 2
    monkeypatch.setattr("sys.argv", [*command, "--resume", "--recipe", "relased"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "relased" in capsys.readouterr().err


def test_interval_against_scipy():
    v = pd.Series([0.1, 0.4, 0.2, 0.5])
    mean, std, low, high = interval(v)
    assert (low, high) == pytest.approx(stats.ttest_1samp(v, 0).confidence_interval(0.95))
    assert (mean, std) == pytest.approx((0.3, v.std()))
    assert np.isnan(interval(v[:1])[1:]).all()


def rows(cases, values, protocol="fixed"):
    head = {"protocol": protocol, "realised": 0.5, "method": "imder", "seed": 1, "f1": 0.5, "acc7": 0.5, "mae": 1.0}
    return pd.DataFrame([head | {"case": c, "acc2": v, "corr": 0.0} for c, v in zip(cases, values, strict=True)])


PATTERNS = ["text", "audio", "vision", "text+audio", "text+vision", "audio+vision", "text+audio+vision"]


def test_averages_and_published_results():
    table = beside_published(rows(PATTERNS, [0.8, 0.6, 0.7, 0.9, 0.9, 0.6, 0.95]), "mosei", "fixed")
    part = table[(table["metric"] == "acc2") & (table["method"] == "IMDer")].set_index("case")
    assert part.loc["average of 6 incomplete", "ours"] == pytest.approx(75)
    assert part.loc["average of all 7", "ours"] == pytest.approx(100 * 5.45 / 7)
    assert part.loc["audio+vision", "published"] == 64.9
    assert part.loc["average of 6 incomplete", "published"] == pytest.approx(
        np.mean([84.5, 63.9, 63.8, 85, 85.1, 64.9])
    )
    assert part.loc["text", "difference"] == pytest.approx(80 - 84.5)
    assert (part["source"] != "").all()
    mae = table[(table["metric"] == "mae") & (table["case"] == "text") & (table["method"] == "")]
    assert mae.empty  # the re-run has a value, so there is no blank row
    assert table[(table["metric"] == "acc7") & (table["case"] == "text")]["method"].tolist() == ["IMDer (re-run)"]


def test_other_data_have_no_published_results():
    table = beside_published(rows(PATTERNS, [0.5] * 7), "mosi_utt_bc", "fixed", sentiment=False)
    assert set(table["metric"]) == {"mae", "corr"}
    assert table["published"].isna().all()
    assert (table["source"] == "").all()


def test_bad_settings_raise(data, tmp_path):
    for bad in ({"text": "bert"}, {"epochs": -1}, {"steps": 1}, {"pretrained": str(tmp_path / "none.pth")}):
        with pytest.raises(UserError):
            Run(data, "smoke", [1], tmp_path, **bad)
    with pytest.raises(UserError, match="trains BERT in stage 1"):
        Run(data, "smoke", [1], tmp_path, text="bert-finetune").train(1)


def test_the_notebooks_of_a_run_get_its_settings(tmp_path, monkeypatch):
    """They get the pretrained model of the grid, and its first seed only."""
    given = {}

    def run_notebook(path, out, parameters, timeout):
        check_parameters(path, parameters)
        given[path.stem] = parameters
        out.parent.mkdir(exist_ok=True)

    grid = {"quick": replace(PROFILES["smoke"], grid=True)}
    monkeypatch.setattr("imder_lib.profiles.PROFILES", grid)
    monkeypatch.setattr(reproduce_module, "run_notebook", run_notebook)
    path = write_fake("mosi", tmp_path / "small.pkl", sizes={"train": 24, "valid": 8, "test": 12}, steps=6)
    out = tmp_path / "out"
    reproduce_module.reproduce(
        reproduce_module.ReproduceSettings(str(path), "quick", "2,3", str(out), epochs=1, steps=2)
    )
    assert tuple(given) == reproduce_module.ORDER
    expected = {"dataset": str(path), "profile": "quick", "seeds": "2", "out": str(out), "text": "features"}
    expected |= {"pretrained": str(out / "pretrained-small.safetensors"), "epochs": 1, "steps": 2}
    assert all(parameters == expected for parameters in given.values())
    assert Run(None, "quick", [2], out, pretrained=expected["pretrained"])  # the file is there
    assert len(list((out / "cells").glob("*.csv"))) == 2


def test_the_released_recipe_refuses_samples_that_lack_a_modality(tmp_path, monkeypatch, capsys):
    path = write_fake("mosi", tmp_path / "some.pkl", sizes={"train": 24, "valid": 8, "test": 12}, steps=6, missing=0.2)
    argv = ["imder", "sweep", "--dataset", str(path), "--out", str(tmp_path / "out"), "--profile", "smoke"]
    monkeypatch.setattr("sys.argv", [*argv, "--recipe", "released"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "recipe 'released' needs samples with all modalities" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
