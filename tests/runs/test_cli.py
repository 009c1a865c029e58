"""Bad input at the command line: one line on standard error, exit code 2, no files written."""

import pickle

import numpy as np
import pytest

from imder_lib.runs import setup

SPLITS = {"train": 12, "valid": 6, "test": 6}
SHAPES = {"text": (4, 6), "audio": (4, 2), "vision": (4, 3)}


def content():
    rng = np.random.default_rng(0)
    out = {}
    for split, n in SPLITS.items():
        out[split] = {m: rng.standard_normal((n, *shape)).astype(np.float32) for m, shape in SHAPES.items()}
        out[split] |= {"regression_labels": rng.uniform(-3, 3, n), "id": [f"{split}{i}" for i in range(n)]}
    return out


def nan(value):
    value["valid"]["vision"][2, 1, 0] = np.nan


def missing_split(value):
    del value["test"]


def swapped_axes(value):
    for part in value.values():
        for m in SHAPES:
            part[m] = part[m].swapaxes(1, 2)


BAD = {nan: "'valid', key 'vision', row 2", missing_split: "'test' is missing", swapped_axes: "swap the last two axes"}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.pkl"
    path.write_bytes(pickle.dumps(content()))
    return path


def jobs(path, folder):
    """All commands that read a data file."""
    return [("check", path), ("convert", path, folder), ("reproduce", "--dataset", path, "--out", folder)]


def refused(imder, tmp_path, arguments, *messages):
    """Run a command that must fail and leave the files in tmp_path unchanged."""
    before = {p: p.read_bytes() if p.is_file() else None for p in tmp_path.rglob("*")}
    code, _, error = imder(*arguments)
    assert (code, error.count("\n")) == (2, 1), (arguments, error)
    for message in messages:
        assert message in error
    assert {p: p.read_bytes() if p.is_file() else None for p in tmp_path.rglob("*")} == before


def test_good_files_are_described_and_converted(imder, file, tmp_path):
    code, text, error = imder("check", file)
    assert (code, error) == (0, "")
    assert "N    12: text 12x4x6, audio 12x4x2, vision 12x4x3" in text
    assert text.endswith("it fits\n")
    assert imder("convert", file, tmp_path / "set")[0] == 0
    assert imder("check", tmp_path / "set")[1].splitlines()[1:] == text.splitlines()[1:]


@pytest.mark.parametrize("edit", BAD, ids=lambda e: e.__name__)
def test_bad_content(imder, file, tmp_path, edit):
    value = content()
    edit(value)
    file.write_bytes(pickle.dumps(value))
    for arguments in jobs(file, tmp_path / "out"):
        refused(imder, tmp_path, arguments, BAD[edit], str(file))


def test_truncated_and_absent_files(imder, file, tmp_path):
    file.write_bytes(file.read_bytes()[:-200])
    for arguments in jobs(file, tmp_path / "out"):
        refused(imder, tmp_path, arguments, "truncated")
    for arguments in jobs(tmp_path / "none.pkl", tmp_path / "out"):
        refused(imder, tmp_path, arguments, "none.pkl")


class Runs:
    def __reduce__(self):
        return exec, ("open('PWNED', 'w')",)


def test_a_pickle_that_would_run_code(imder, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file.write_bytes(pickle.dumps(Runs()))
    for arguments in jobs(file, tmp_path / "out"):
        refused(imder, tmp_path, arguments, "builtins.exec")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--profile", "fast"), "unknown profile 'fast': expected one of ['smoke', 'quick', 'full']"),
        (("--seeds", "1,x"), "seeds must be whole numbers"),
        (("--seeds", "1,1"), "seeds must be distinct"),
        (("--dataset", "nothing"), "no data at"),
        (("--data", "synthetic"), "--data"),
        (("--timeout", "long"), "--timeout"),
        (("--recipe", "released"), "recipe 'released' needs the grid"),
        (("--steps", "1"), "steps 0 or >= 2"),
        (("--text", "bert"), "unknown text route 'bert'"),
        (("--pretrained", "none.pth"), "no pretrained model at"),
        (("--download-bert",), "text 'features' needs no BERT"),
    ],
)
def test_bad_options(imder, tmp_path, option, message):
    refused(imder, tmp_path, ("reproduce", *option, "--out", tmp_path / "out"), message)


def test_an_output_folder_that_exists(imder, file, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "note.txt").write_text("mine")
    refused(imder, tmp_path, ("reproduce", "--out", out), "exists already")
    refused(imder, tmp_path, ("convert", file, out), "exists already")
    refused(imder, tmp_path, ("reproduce", "--out", out, "--resume"), "is no run of this kit")
    (out / "run.json").write_text('{"profile"')
    refused(imder, tmp_path, ("reproduce", "--out", out, "--resume"), "is no run of this kit")
    (out / "run.json").write_text('{"dataset": "synthetic", "profile": "full", "seeds": "1"}')
    refused(imder, tmp_path, ("reproduce", "--out", out, "--resume"), "other settings")


def test_an_output_folder_that_cannot_be_written(imder, file, tmp_path):
    for out in (file / "below" / "a_file", "/proc/none", "/proc/none/none"):
        refused(imder, tmp_path, ("reproduce", "--profile", "smoke", "--out", out), "cannot be written")
        refused(imder, tmp_path, ("convert", file, out), "cannot be written")


@pytest.mark.parametrize("command", ["reproduce", "sweep"])
def test_an_interruption_is_said_and_leaves_no_folder(imder, tmp_path, monkeypatch, command):
    def load_data(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(setup, "load_data", load_data)
    code, _, error = imder(command, "--out", tmp_path / "a" / "out")
    assert (code, error) == (130, "imder: interrupted: continue with --resume\n")
    assert list(tmp_path.iterdir()) == []


def test_usage_errors(imder):
    assert "reproduce" in imder("--help")[1]
    for arguments in (["reproduec"], ["check"], ["check", "a", "b"]):
        code, _, error = imder(*arguments)
        assert (code, error.count("\n")) == (2, 1)
