"""The benchmarks that are commands: what they compute, and what an interruption or a mistake leaves."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import real_data


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
