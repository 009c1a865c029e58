"""The benchmarks that are commands: what they compute, and what an interruption or a mistake leaves."""

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from benchmarks import bench, real_data, recovery
from imder_runs.setup import Run


def test_what_a_sample_lacks_in_the_file_is_missing_in_every_case(data):
    lacks = {
        name: replace(data.splits[name], available=np.ones((len(data.splits[name]), 3), bool)) for name in data.splits
    }
    for split in lacks.values():
        split.available[::2, 0] = False
    run = SimpleNamespace(data=replace(data, splits=lacks))
    masks = real_data.masks(run, seed=1)
    assert len(masks) > 7
    assert all(mask.any(axis=1).all() for mask in masks.values())
    assert not any(mask[::2, 0].any() for mask in masks.values())
    complete = masks["fixed", "+".join(data.modalities)]
    found = real_data.ridge(run, complete)
    unseen = data.train.features["text"].copy()
    unseen[::2] += 9  # of the samples that have no text
    lacks["train"] = replace(lacks["train"], features={**data.train.features, "text": unseen})
    again = real_data.ridge(SimpleNamespace(data=replace(data, splits=lacks)), complete)
    np.testing.assert_array_equal(found, again)
    only = real_data.ridge(run, masks["fixed", "text"])[1]
    own = lacks["train"].features["text"].mean(1)[1::2], data.train.labels[1::2]
    expected = real_data.RidgeCV(np.logspace(-1, 5, 25)).fit(*own).predict(data.test.features["text"][1:2].mean(1))
    assert only == pytest.approx(float(expected[0]), abs=1e-4)


def test_a_misspelt_recoverer_is_found_before_anything_is_trained(monkeypatch, capsys):
    monkeypatch.setattr(real_data, "start_run", lambda *_: pytest.fail("started"))
    monkeypatch.setattr("sys.argv", ["real_data.py", "synthetic", "--names", "kit,regresion"])
    with pytest.raises(SystemExit):
        real_data.main()
    assert "did you mean regression?" in capsys.readouterr().err


def test_a_posterior_check_is_not_repeated_and_its_model_gets_its_own_seconds(data, monkeypatch, tmp_path):
    run = Run(data, "smoke", [1], tmp_path)
    history = pd.DataFrame({"stage": ["fusion", "diffusion", "diffusion"], "seconds": [100.0, 2.0, 3.0]})
    folders, checked = [], []

    def train(name, data, model, config, folder, *_):
        (folder / name).mkdir(parents=True, exist_ok=True)
        folders.append(folder)
        return SimpleNamespace(model=SimpleNamespace(config=run.model_config()), history=history)

    def check(model, data, **given):
        checked.append(model)
        return pd.DataFrame(
            {"pattern": "text", "method": ["recovered", "exact"], "metric": "bias", "value": [0.1, 0.0]}
        )

    evaluated = pd.DataFrame({"method": ["kit", "zero"], "mae": [1.0, 2.0]})
    for name, fake in {"start_run": lambda *_: run, "train_compared": train, "posterior_check": check}.items():
        monkeypatch.setattr(recovery, name, fake)
    monkeypatch.setattr(recovery, "evaluate", lambda *_, **__: evaluated.copy())
    for more, runs in (([], 1), ([], 1), (["--limit", "4"], 2), (["--limit", "5"], 3), (["--draws", "2"], 4)):
        command = ["recovery.py", "--profile", "smoke", "--names", "kit", "--out", str(tmp_path), *more]
        monkeypatch.setattr("sys.argv", command)
        recovery.main()
        assert len(checked) == runs
        quality = pd.read_csv(tmp_path / "sample_quality.csv").set_index("method")["seconds"]
        assert quality["kit"] == 5 and np.isnan(quality["exact"])
    seconds = pd.read_csv(tmp_path / "metrics.csv").set_index("method")["seconds"]
    assert seconds["kit"] == 5 and np.isnan(seconds["zero"])
    assert folders[0] == folders[1] == folders[4] != folders[2]  # other epochs of fusion


def test_bench_keeps_each_row_and_passes_its_threads_on(monkeypatch, tmp_path):
    def fails(sizes):
        yield from ()
        raise RuntimeError("no")

    path, known = tmp_path / "bench.json", []

    def whole(profile, product):
        known.extend([json.loads(path.read_text()), os.environ["OMP_NUM_THREADS"]])
        return {"row": "whole smoke", "seconds": 1.0}

    def slopes(*_):
        yield {"axis": "N", "sizes": [1, 2], "slope": 1.0, "memory_slope": 1.0}
        raise ValueError("no memory")

    monkeypatch.setattr(bench, "ROWS", {"score": fails})
    monkeypatch.setattr(bench, "PRODUCT", 8)
    monkeypatch.setattr(bench, "whole_run", whole)
    monkeypatch.setattr(bench, "scaling", slopes)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(bench.torch, "set_num_threads", lambda n: None)
    command = ["bench", "--rows", "score,scaling,smoke", "--threads", "2", "--out", str(tmp_path)]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit):
        bench.main()
    before, threads = known
    assert threads == "2"
    assert [row["error"] for row in before["rows"]] == ["RuntimeError: no", "ValueError: no memory"]
    assert [row["axis"] for row in before["scaling"]] == ["N"]
    assert [row["row"] for row in json.loads(path.read_text())["rows"]] == ["score", "scaling", "whole smoke"]
