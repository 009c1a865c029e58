"""The paper's grid: cells, resuming, and tables beside published results."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from imder_lib import IMDer, UserError, load_data, model_preset, train_preset
from imder_lib.data.missing import RATES
from imder_lib.experiment.training import BEST_EPOCH
from imder_runs import cells, setup, sweep_commands
from imder_runs import reproduce as reproduce_module
from imder_runs.attempt import own_threads
from imder_runs.cells import environment_hash, pretrain_run, run_of
from imder_runs.cli import main
from imder_runs.comparison import COMPARED, train_compared
from imder_runs.fake import write_fake
from imder_runs.grid import Grid, cases_of, plan, read_grid
from imder_runs.notebook import check_parameters
from imder_runs.outcome import compare, status, write_plan, write_results
from imder_runs.profiles import PROFILES
from imder_runs.setup import Run, start_run
from imder_runs.sweep import Workers, sweep
from imder_runs.tables import beside_published, interval

SWEEPS = Path(__file__).resolve().parents[2] / "sweeps"
MODALITIES = ("text", "audio", "vision")


def small(**changes):
    """A grid of smoke cells on the synthetic data."""
    return Grid(**{"profile": "smoke", "seeds": [1], "epochs": 1, "steps": 2} | changes)


def test_the_grid_of_the_paper():
    cells = plan(small(seeds=list(range(1111, 1120)), recipe=["staged", "released"]))
    assert len({c.name for c in cells}) == len(cells) == 1 + 9 * (1 + 8)
    stage, *rest = cells
    assert stage.settings["kind"] == "shared"
    assert all(c.needs == stage.name for c in rest)
    assert [c.settings["seed"] for c in rest] == sorted(c.settings["seed"] for c in rest)


def test_each_seed_has_its_fusion_stage():
    cells = plan(small(seeds=[2, 1], recoverers=["kit", "released"]))
    assert [c.label.removeprefix("synthetic-") for c in cells] == [
        "fusion-seed2", "fusion-seed1", "kit-seed2", "released-seed2", "kit-seed1", "released-seed1"
    ]  # fmt: skip
    assert {c.needs for c in cells[2:4]} == {cells[0].name}


def test_axes_and_the_fusion_stages_that_they_share():
    cells = plan(small(steps=0, sampler={"steps": [2, 3]}, train={"fusion": {"lr": [0.001, 0.002]}}))
    kinds = Counter(c.settings["kind"] for c in cells)
    assert kinds == {"fusion": 2, "cell": 4}  # lr changes the fusion stage, steps do not
    assert {c.settings["varied"] for c in cells if c.needs} == {
        f"fusion.lr{x}-steps{n}" for x in (0.001, 0.002) for n in (2, 3)
    }
    one = plan(small(model={"unet": {"channels": [32, 64]}}))
    assert [c.settings["model"] for c in one] == [{"unet": {"channels": [32, 64]}}] * 2


def test_the_identity_of_a_cell_is_what_it_computes(data, tmp_path):
    path = write_fake("mosi", tmp_path / "small.pkl", sizes={"train": 24, "valid": 8, "test": 12}, steps=6)
    shutil.copy(path, tmp_path / "other")
    (tmp_path / "there").mkdir()
    shutil.copy(path, tmp_path / "there" / "small.pkl")
    first, moved = (plan(small(dataset=str(p)))[-1].name for p in (path, tmp_path / "there" / "small.pkl"))
    assert first == moved
    assert first != plan(small(dataset=str(path), draws=3))[-1].name
    assert first != plan(small(dataset=str(path), rates=[0.1]))[-1].name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recoverer: kit", "unknown key 'recoverer': did you mean recoverers?"),
        ("recoverers: [kitt]", "unknown recoverer 'kitt': did you mean kit?"),
        ("profile: smok", "unknown profile 'smok': did you mean smoke?"),
        ("protocols: fixd", "unknown protocol 'fixd': did you mean fixed?"),
        ("train: {learning_rate: 1}", "train: unknown setting 'learning_rate'"),
        ("train: {seed: 1}", "train: unknown setting 'seed'"),
        ("train: {fusion: {lr: fast}}", "train.fusion: lr must be a number, got 'fast'"),
        ("model: {fusion: {layers: true}}", "model.fusion: layers must be a whole number, got True"),
        ("model: {fusion: {outputs: 2}}", "model.fusion: unknown setting 'outputs'"),
        ("model: {fusion: 2}", "model: fusion must be a table of settings, got 2"),
        ("sampler: 3", "sampler must be a table of settings, got 3"),
        ("epochs: 1.5", "epochs must be a whole number, got 1.5"),
        ("seeds: [1, 1]", "seeds must be distinct"),
        ("rates: [low]", "rates must be numbers"),
        ("imbalanced: 0.1\nprotocols: imbalanced", "imbalanced must be tables of rates"),
        ("imbalanced: {text: 0.1}", "imbalanced must be tables of rates, with protocol imbalanced"),
        ("recipe: released\nfusion: seed", "fusion must be seed or shared, and shared for recipe released"),
        ("recipe: released\ntrain: {rate: 0.3}", "train.rate: recipe released trains a model for each of rates"),
        ("pretrained: p.pth\ntrain: {fusion: {lr: 1}}", "train.fusion: pretrained takes the place"),
        ("patterns: text\nprotocols: random", "patterns are those of protocol fixed"),
        ("rates: 0.1\nprotocols: fixed", "rates have no effect on protocols ['fixed']"),
        ("recipe: released\nrecoverers: regression", "recoverers have no effect on recipe ['released']"),
        ("extension: mine.txt", "extension must be a Python file"),
        ("- a", "expected lines such as"),
        ("a: [", "is no YAML"),
        ("a: &x [1]\nseeds: *x", "aliases (*name) are not read"),
        ("#" * 100_001, "more than 100000 characters"),
        ("a: !!python/object/apply:os.getcwd []", "is no YAML"),
        ("", "expected lines such as"),
    ],
)
def test_bad_grids_are_one_error(tmp_path, text, message):
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(message)):
        read_grid(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rates": [0.25]}, "rate 0.25 is not possible"),
        ({"patterns": ["text+sound"]}, "unknown pattern 'text+sound': did you mean"),
        ({"protocols": ["imbalanced"], "imbalanced": [{"sound": 0.1}]}, "rates 'sound=0.1': expected rates in [0, 1]"),
        ({"train": {"fusion": {"lr": -1.0}}}, "lr > 0"),
        ({"sampler": {"name": "em2"}}, "unknown sampler"),
        ({"sampler": {"steps": 3}}, "steps and sampler.steps are both given"),
        ({"recipe": "released", "sampler": {"name": "heun", "schedule": "karras"}}, "starts at noise level 40"),
        ({"dataset": ["nothing"]}, "no data at"),
    ],
)
def test_what_the_data_do_not_allow_is_said_before_anything_runs(changes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        plan(small(**changes))


def test_data_of_one_name_do_not_share_a_table(tmp_path):
    paths = [str(tmp_path / d / "small.pkl") for d in "ab"]
    for path in paths:
        Path(path).parent.mkdir()
        write_fake("mosi", Path(path), sizes={"train": 24, "valid": 8, "test": 12}, steps=6)
    with pytest.raises(UserError, match=r"a/small.pkl and .*b/small.pkl are both called 'small'"):
        plan(small(dataset=paths))


def test_many_axes_have_names_of_their_own():
    train = {"fusion": {"lr": [0.001, 0.002]}, "diffusion": {"lr": [0.001, 0.002], "weight_decay": [0.01, 0.02]}}
    model = {"joint": {"channels": [16, 32], "blocks": [1, 2]}}
    cells = [c for c in plan(small(train=train, model=model)) if c.needs]
    names = {c.settings["varied"] for c in cells}
    assert len(cells) == len(names) == 32
    assert max(map(len, names)) <= 60


def test_epochs_limit_those_of_a_grid_too():
    run = Run(load_data("synthetic", sizes={"train": 8, "valid": 4, "test": 4}), "smoke", [1], Path(), epochs=2)
    run = replace(run, changes={"train": {"fusion": {"epochs": 30, "lr": 0.5}}})
    assert (run.train_config(1).fusion.epochs, run.train_config(1).fusion.lr) == (2, 0.5)


def test_limits_of_workers():
    for memory in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="memory must be a number of GB"):
            Workers(memory=memory)


@pytest.mark.parametrize(("text", "threads"), [("", 0), ("3", 3), ("4,2", 4), ("many", 0)])
def test_threads_of_cells(monkeypatch, tmp_path, text, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    assert own_threads() == threads
    assert Workers(scheduler="tcp://a:1").how(tmp_path).threads == 0  # the worker's own
    monkeypatch.setattr("imder_runs.sweep.own_cores", lambda: list(range(8)))
    assert Workers(workers=3).how(tmp_path).threads == (threads or 2)


def test_tables_are_those_of_a_grid_with_results(tmp_path, monkeypatch):
    out, kw = tmp_path / "out", {"fusion": "shared", "rates": [0.3], "patterns": ["text"]}
    sweep(small(recoverers=["dropout"], **kw), out)
    before = (out / "results.csv").read_bytes()
    monkeypatch.setattr("imder_runs.dask_pool.PATIENCE", 1)
    with pytest.raises(UserError, match="scheduler"):
        sweep(small(recoverers=["regression"], **kw), out, Workers(scheduler="tcp://127.0.0.1:9"))
    assert (out / "results.csv").read_bytes() == before
    write_results(out, plan(small(seeds=[5], **kw)))  # a grid that has come to nothing
    assert (out / "results.csv").read_bytes() == before
    (out / "tables" / "05_paper_other.md").write_text("of an earlier grid")
    mine = small(recoverers=["dropout"], **kw)
    sweep(mine, out)
    assert sorted(p.stem for p in (out / "tables").glob("*.md")) == [
        "05_paper_all", "05_paper_fixed_staged_dropout", "05_paper_random_staged_dropout", "missing"
    ]  # fmt: skip


def test_a_pretrained_model_that_changes_under_a_sweep(tmp_path):
    (tmp_path / "p.safetensors").write_text("other")
    settings = {"environment": environment_hash(), "pretrained": str(tmp_path / "p.safetensors")}
    with pytest.raises(UserError, match="has changed since the sweep was started"):
        run_of(settings | {"pretrained_sha256": "0"}, tmp_path, None)


def test_the_released_models_cover_each_case_once():
    grid = small(recipe=["released"])
    todo = [cases_of(grid, RATES, MODALITIES, r) for r in RATES]
    fixed = [c for t in todo for c in t if c[0] == "fixed"]
    assert len(fixed) == len(set(fixed)) == 7
    assert ("fixed", "audio") in todo[RATES.index(0.7)]  # two of three are missing
    assert ("fixed", "text+vision") in todo[RATES.index(0.3)]
    assert ("fixed", "text+audio+vision") in todo[0]
    assert [c[1] for t in todo for c in t if c[0] == "random"] == list(RATES)
    assert len(cases_of(grid, RATES, MODALITIES)) == 7 + 8


def test_protocols_by_modality_and_by_instance():
    grid = small(protocols=["imbalanced", "instance"], imbalanced=[{"text": 0.1, "audio": 0.9}], recipe=["released"])
    by_rate = {r: cases_of(grid, RATES, MODALITIES, r) for r in RATES}
    assert ("imbalanced", "text=0.1+audio=0.9") in by_rate[0.3]
    assert [c for todo in by_rate.values() for c in todo if c[0] == "instance"] == [("instance", r) for r in RATES]
    without = cases_of(small(protocols="imbalanced"), RATES, MODALITIES)
    assert without[1] == ("imbalanced", "text=0.1+audio=0.7+vision=0.1")
    assert len(without) == 3


def test_the_grids_in_sweeps_are_read():
    for path in sorted(SWEEPS.glob("*.yaml")):
        grid = read_grid(path)
        assert path.stem in (*grid.dataset, grid.profile)
    assert {p.stem for p in SWEEPS.glob("*.yaml")} == {"smoke", "mosi", "mosei"}


def test_a_sweep_its_state_and_its_comparison(tmp_path, capsys):
    """Two models in processes of their own; a second call runs the rest and nothing twice."""
    grid = small(seeds=[1, 2], recoverers=["dropout"], rates=[0.3], patterns=["text"], fusion="shared")
    out = tmp_path / "out"
    sweep(grid, out, only="*seed1")
    before = {p: p.stat().st_mtime_ns for p in (out / "cells").rglob("*")}
    assert status(out) | {"estimated_cell_seconds": 0} == {
        "folder": str(out), "cells": 3, "done": 2, "running": 0, "failed": 0, "left": 1, "running_names": [],
        "failures": [], "estimated_cell_seconds": 0,
    }  # fmt: skip
    assert len(pd.read_csv(out / "tables" / "missing.csv")) == 1
    sweep(grid, out, dry_run=True)
    assert "1 of 3 cells would run, about" in capsys.readouterr().out
    sweep(grid, out)
    assert before.items() <= {p: p.stat().st_mtime_ns for p in (out / "cells").rglob("*")}.items()
    assert list((out / "unfinished").iterdir()) == []
    for cell in (out / "cells").iterdir():
        files = {"settings.json", "metrics.json", "log.txt", "history.csv", "provenance.json"}
        own = {"pretrained.json", "pretrained.safetensors"} if "-shared-" in cell.name else {"checkpoint"}
        assert {p.name for p in cell.iterdir()} == files | own
    rows = pd.read_csv(out / "results.csv")
    assert set(rows["seed"]) == {1, 2}
    assert set(rows["case"]) == {"text", "0.3"}
    assert (out / "tables" / "05_paper_fixed_staged_dropout.md").read_text().endswith(f"\n\n{BEST_EPOCH}\n")
    table = compare(out, out)
    assert (table["difference"] == 0).all()
    assert set(table["seeds"]) == {2}
    with pytest.raises(UserError, match="holds other things than a sweep"):
        sweep(grid, tmp_path)
    with pytest.raises(UserError, match="no cell matches 'kit'"):
        sweep(grid, out, only="kit")
    with pytest.raises(UserError, match="holds no sweep"):
        status(tmp_path)


def finished(folder, cells, shift):
    """Write the rows of finished cells, whose metrics are better by ``shift(seed)`` than .5 and 1."""
    write_plan(folder, cells)
    for cell in cells:
        own, by = cell.settings, shift(cell.settings["seed"])
        head = {k: own.get(k) for k in ("recipe", "recoverer", "varied", "seed")} | {"dataset": own["data"]}
        head |= {"rate": 0.5, "realised": 0.5, "n": 3, "draws": 1}
        numbers = {"imder": {"acc2": 0.5 + by, "mae": 1 - by, "corr": None}, "zero": {"acc2": 0.1, "mae": 9.0}}
        rows = [head | {"protocol": p, "case": str(c), "method": m} | v
                for p, c in own.get("cases", ()) for m, v in numbers.items()]  # fmt: skip
        (folder / "cells" / cell.name).mkdir(parents=True)
        (folder / "cells" / cell.name / "metrics.json").write_text(json.dumps(rows))


def test_a_comparison_is_b_minus_a_with_an_interval_over_the_seeds_of_both(tmp_path, imder):
    """The seeds are better by .1, .2 and .6 in B, which has a fourth one alone."""
    a, b = tmp_path / "a", tmp_path / "b"
    kw = {"recoverers": ["dropout"], "rates": [0.3], "patterns": ["text"], "fusion": "shared"}
    finished(a, plan(small(seeds=[1, 2, 3], **kw)), lambda seed: 0.01 * seed)
    gain = {1: 0.1, 2: 0.2, 3: 0.6, 4: 0.3}
    finished(b, plan(small(seeds=[1, 2, 3, 4], **kw)), lambda seed: 0.01 * seed + gain[seed])
    table = compare(a, b)
    assert [*zip(table["metric"], table["case"], strict=True)] == [
        (m, c) for m in ("acc2", "mae") for c in ("text", "0.3")
    ]
    assert (table["seeds"] == 3).all()
    ends = stats.ttest_1samp([0.1, 0.2, 0.6], 0).confidence_interval(0.95)
    for row in table.to_dict("records"):
        sign = 1 if row["metric"] == "acc2" else -1
        start = 0.5 if row["metric"] == "acc2" else 1.0
        assert (row["a"], row["b"]) == pytest.approx((start + sign * 0.02, start + sign * 0.32))
        assert row["difference"] == pytest.approx(sign * 0.3)
        assert (row["low"], row["high"]) == pytest.approx(sorted(sign * x for x in ends))
    assert imder("compare", a, b, "--out", tmp_path / "c.csv")[0] == 0
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "c.csv", dtype={"case": str}, keep_default_na=False), table)


@pytest.mark.parametrize(
    ("key", "message"),
    [("environment", "this worker has other package versions"), ("data_sha256", "synthetic holds other data")],
)
def test_a_worker_with_other_packages_or_data_is_refused(tmp_path, key, message):
    settings = plan(small())[0].settings
    assert run_of(settings, tmp_path, None).data.sha256 == settings["data_sha256"]
    with pytest.raises(UserError, match=message):
        run_of(settings | {key: "0"}, tmp_path, None)


def test_a_cell_of_the_released_recipe_trains_at_its_rate_and_tests_all_its_draws(tmp_path, monkeypatch):
    given = []
    run = Run(tiny_data(), "smoke", [5], tmp_path, epochs=1, steps=2)
    run = replace(run, changes={"model": TINY, "train": {"batch_size": 1}})
    pretrain_run(run, 5, tmp_path / "fusion", tmp_path / "p.safetensors")
    run = replace(run, pretrained=str(tmp_path / "p.safetensors"))
    monkeypatch.setattr(cells, "fit", lambda model, data, config, *args, **kw: given.append((model, config)))
    cells.train_cell(run, {"recipe": "released", "rate": 0.6}, tmp_path)
    ((model, config),) = given
    assert (config.recipe, config.rate, config.seed, config.fusion.epochs) == ("released", 0.6, 5, 0)
    settings = {"cases": [["fixed", "a"], ["released", 0.6]], "draws": 3, "varied": ""}
    rows = cells.test_cell(model, run, settings | {"recipe": "released", "recoverer": "released"})
    rows = [r for r in rows if r["method"] == "imder"]
    assert [(r["case"], r["draws"], r["seed"]) for r in rows] == [("a", 3, 5), ("0.6", 3, 5)]
    assert rows[1]["realised"] > 0.5  # batches of the test are those of the training: one of 32 would lack nothing


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


def test_a_grid_from_the_command_line(imder, tmp_path):
    grid, out = tmp_path / "grid.yaml", tmp_path / "out"
    grid.write_text("profile: smoke\nseeds: 1\nrecoverers: [dropout]\nepochs: 1\nsteps: 2\nprotocols: fixed\n")
    assert imder("sweep", grid, "--out", out, "--seeds", 3)[0] == 2
    code, text, _ = imder("sweep", grid, "--out", out, "--dry-run")
    assert (code, text.splitlines()[-1]) == (0, "2 of 2 cells would run")
    assert not out.exists()
    code, text, error = imder("sweep", grid, "--out", out)
    assert (code, error) == (0, "")
    assert text.splitlines()[-1] == f"tables: {out / 'tables'}"
    assert imder("status", out)[1] == "2 cells: 2 done, 0 running, 0 failed, 0 left\n"
    assert json.loads(imder("status", out, "--json")[1])["done"] == 2
    assert imder("compare", out, out, "--out", tmp_path / "c.csv")[1].startswith("| dataset")
    assert (tmp_path / "c.csv").exists()
    table = pd.read_csv(out / "tables" / "05_paper_fixed_staged_dropout.csv", keep_default_na=False)
    (over,) = set(table.loc[table["case"] == "average of 6 incomplete", "over"])
    assert over == "text, audio, vision, text+audio, text+vision, audio+vision"


MINE = """
from imder_lib.model.recoverers import RECOVERERS
from imder_lib.model.recovery import MeanFill
from imder_runs.comparison import COMPARED


class Half(MeanFill):
    def forward(self, latents, available, noise=None, sampler=None, callback=None):
        full = super().forward(latents, available)
        return self.fill(latents, available, {m: x / 2 for m, x in full.items()})


RECOVERERS["half"] = Half
COMPARED["half"] = {"recoverer": "half"}
"""


def test_a_grid_with_a_recoverer_of_the_users(tmp_path):
    """In a command of its own, as a user gives it: each cell is a process that reads the file again."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "grid.yaml").write_text(
        "profile: smoke\nseeds: 1\nrecoverers: [dropout, half]\nepochs: 1\nsteps: 2\npatterns: [text]\n"
        "protocols: fixed\nextension: mine.py\n"
    )
    command = [sys.executable, "-m", "imder_runs.cli", "sweep", "grid.yaml", "--out", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = pd.read_csv(tmp_path / "out" / "results.csv").query("method == 'imder'")
    assert set(found["recoverer"]) == {"dropout", "half"}
    assert found["mae"].nunique() == 2


def test_a_row_of_the_comparison_needs_its_recoverer(monkeypatch):
    monkeypatch.setitem(COMPARED, "mine", {"recoverer": "regresion"})
    with pytest.raises(UserError, match=r"'mine' of COMPARED .* 'regresion': did you mean regression"):
        small(recoverers=["mine"])


def test_bert_is_downloaded_for_a_grid_too(imder, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(setup, "local_bert", lambda folder, download=False: asked.append(download))
    monkeypatch.setattr(sweep_commands, "sweep", lambda *args, **kw: None)
    grid = tmp_path / "grid.yaml"
    for text in ("features", "bert-frozen"):
        grid.write_text(f"profile: smoke\ntext: {text}\n")
        code, _, error = imder("sweep", grid, "--out", tmp_path / "out", "--download-bert")
        assert ("needs no BERT" in error) == (code == 2) == (text == "features")
    assert asked == [True]


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


def test_published_rates_stand_beside_the_masks_of_the_release():
    tables = [beside_published(rows([0.3, 0.5], [0.8, 0.7], p), "mosi", p) for p in ("random", "released")]
    assert tables[0]["published"].notna().any()
    pd.testing.assert_frame_equal(*tables)


def test_other_data_have_no_published_results():
    table = beside_published(rows(PATTERNS, [0.5] * 7), "mosi_utt_bc", "fixed", sentiment=False)
    assert set(table["metric"]) == {"mae", "corr"}
    assert table["published"].isna().all()
    assert (table["source"] == "").all()


def test_data_with_classes_have_their_own_metrics():
    table = rows(PATTERNS, [0.5] * 7).drop(columns=["acc2", "f1", "acc7", "mae", "corr"])
    assert beside_published(table, "digits", "fixed", sentiment=False).empty
    shown = beside_published(table.assign(acc=0.25), "digits", "fixed", sentiment=False)
    assert set(shown["metric"]) == {"acc"}
    assert set(shown["ours"]) == {0.25}


def test_bad_settings_raise(data, tmp_path):
    for bad in ({"text": "bert"}, {"epochs": -1}, {"steps": 1}, {"pretrained": str(tmp_path / "none.pth")}):
        with pytest.raises(UserError):
            Run(data, "smoke", [1], tmp_path, **bad)
    with pytest.raises(UserError, match="trains BERT in the fusion stage"):
        Run(data, "smoke", [1], tmp_path, text="bert-finetune").train(1)


def test_the_notebooks_of_a_run_get_its_settings(tmp_path, monkeypatch):
    """They get the pretrained model of the grid, and its first seed only."""
    given = {}

    def run_notebook(path, out, parameters, timeout, shown, threads):
        check_parameters(path, parameters)
        given[path.stem] = parameters
        out.parent.mkdir(exist_ok=True)

    with_grid = replace(PROFILES["smoke"], grid=True)
    monkeypatch.setattr("imder_runs.profiles.PROFILES", {"smoke": with_grid})
    monkeypatch.setattr(reproduce_module, "run_notebook", run_notebook)
    path = write_fake("mosi", tmp_path / "small.pkl", sizes={"train": 24, "valid": 8, "test": 12}, steps=6)
    out = tmp_path / "out"
    reproduce_module.reproduce(
        reproduce_module.ReproduceSettings(str(path), "smoke", "2,3", str(out), epochs=1, steps=2, at_once=1)
    )
    assert tuple(given) == reproduce_module.ORDER
    expected = {"dataset": str(path), "profile": "smoke", "seeds": "2", "out": str(out), "text": "features"}
    (stage,) = (out / "cells").glob("small-shared-seed2-*")
    expected |= {"pretrained": str(stage / "pretrained.safetensors"), "epochs": 1, "steps": 2}
    start = given.pop("00_start_here")  # digits, which need neither data nor pretraining
    assert start == {k: expected[k] for k in ("profile", "seeds", "out", "epochs", "steps")}
    assert all(parameters == expected for parameters in given.values())
    assert len(list((out / "cells").glob("small-kit-*"))) == 2
    kept = out / "models" / "small" / "seed2" / "kit" / "checkpoint.pt"  # the notebooks do not train it again
    before = kept.stat().st_mtime_ns
    given = {"pretrained": expected["pretrained"], "epochs": 1, "steps": 2}
    start_run(str(path), "smoke", "2", out, **given).train(2)
    assert kept.stat().st_mtime_ns == before


def test_the_released_recipe_refuses_samples_that_lack_a_modality(tmp_path, monkeypatch, capsys):
    path = write_fake("mosi", tmp_path / "some.pkl", sizes={"train": 24, "valid": 8, "test": 12}, steps=6, missing=0.2)
    argv = ["imder", "sweep", "--dataset", str(path), "--out", str(tmp_path / "out"), "--profile", "smoke"]
    monkeypatch.setattr("sys.argv", [*argv, "--recipe", "released"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "recipe 'released' needs samples with all modalities" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


TINY = {"dim": 8, "fusion": {"layers": 1, "heads": 2}, "unet": {"channels": (8,), "heads": 2, "refiner_blocks": 1},
        "joint": {"channels": 8, "blocks": 1}}  # fmt: skip


def tiny_data():
    return load_data("synthetic", sizes={"train": 24, "valid": 8, "test": 8}, widths=dict.fromkeys("abc", 4), steps=4)


def tiny_comparison():
    """Data, and the common configurations of a comparison of recoverers."""
    data = tiny_data()
    model = model_preset("mosi", data.widths, **TINY, sampler={"guidance": 2.0, "steps": 2})
    train = train_preset("mosi", **{stage: {"epochs": 1} for stage in ("fusion", "diffusion", "adapt")})
    return data, model, train


def test_compared_recoverers_start_from_the_shared_encoders_and_fusion(tmp_path):
    data, model, train = tiny_comparison()
    shared = train_compared("kit", data, model, train, tmp_path, until="fusion").model
    untrained = IMDer(model, seed=train.seed)
    for name in ("kit", "regression"):
        own = train_compared(name, data, model, train, tmp_path, until="diffusion").model
        for part in ("encoders", "fusion"):
            a, b, c = (getattr(m, part).state_dict() for m in (shared, own, untrained))
            assert all(torch.equal(a[k], b[k]) for k in a), (name, part)
            assert any(not torch.equal(a[k], c[k]) for k in a), (name, part)


def test_guidance_is_the_kits_alone(tmp_path):
    """A grid may set it although its other recoverers have no use for it."""
    data, model, train = tiny_comparison()
    found = {name: train_compared(name, data, model, train, tmp_path).model.config.sampler for name in COMPARED}
    assert {name for name, sampler in found.items() if sampler.guidance == 2 and name in ("network", "kit")} == {"kit"}
    assert {sampler.steps for sampler in found.values()} == {2}
