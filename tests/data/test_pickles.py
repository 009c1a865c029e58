"""Reading of pickles, and fake files with the published schema."""

import pickle

import numpy as np
import pytest

from imder_lib import UserError, load_data
from imder_lib.data.pickles import read_pickle
from imder_runs.cli import main
from imder_runs.convert import convert
from imder_runs.describe import describe
from imder_runs.fake import SIZES, is_fake, write_fake

SMALL = {"train": 40, "valid": 8, "test": 9}


@pytest.mark.parametrize("protocol", range(2, 6))
def test_arrays_are_read_as_they_were_written(protocol, tmp_path):
    rng = np.random.default_rng(0)
    big = rng.standard_normal((50, 40, 20)).astype(np.float32)
    words = np.array([f"word {i}" for i in range(4000)])
    value = {"a": big, "f": np.asfortranarray(big), "again": big, "d": big.astype(np.float64), "words": words, "n": 3}
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    read = read_pickle(path)
    for key in ("a", "f", "again", "d", "words"):
        np.testing.assert_array_equal(read[key], value[key])
        assert read[key].dtype == value[key].dtype
    assert read["n"] == 3
    path.write_bytes(pickle.dumps(value, protocol=protocol)[:-100_000])
    with pytest.raises(UserError, match="truncated"):
        read_pickle(path)


@pytest.mark.parametrize("name", ["mosi", "mosei"])
def test_a_fake_file_passes_the_checks_and_is_labelled(name, tmp_path):
    path = write_fake(name, tmp_path / name / "aligned_50.pkl", sizes=SMALL)
    with pytest.warns(UserWarning, match="published"):
        data = load_data(name, root=tmp_path)
    assert {k: len(s) for k, s in data.splits.items()} == SMALL
    assert is_fake(data)
    assert "fake" in describe(data)
    assert data.train.features["audio"][0, 0, 0] == 0  # -inf in the file
    converted = convert(path, tmp_path / "set")
    for split, s in data.splits.items():
        for m, x in s.features.items():
            np.testing.assert_array_equal(converted.splits[split].features[m], x)
        np.testing.assert_array_equal(converted.splits[split].text_bert, s.text_bert)
    keys = set(pickle.loads(path.read_bytes())["train"])
    assert {"raw_text", "text_bert", "annotations", "classification_labels", "audio_lengths", "vision_lengths"} < keys
    with pytest.raises(UserError, match="exists"):
        write_fake(name, path)
    assert [p.name for p in path.parent.iterdir()] == ["aligned_50.pkl"]


def test_sizes_are_the_published_ones():
    assert SIZES["mosei"] == {"train": 16326, "valid": 1871, "test": 4659}
    with pytest.raises(UserError, match="mosei"):
        write_fake("mosie", "x.pkl")


def test_a_bad_name_is_one_line_and_exit_code_2(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["imder", "fake", "mosie", str(tmp_path / "x.pkl")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
