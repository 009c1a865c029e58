"""Bad input at the command line: one line on standard error, exit code 2, no files written."""

import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from imder_lib import UserError
from imder_lib.diffusion.samplers import Sampler
from imder_lib.files import write_text
from imder_runs import setup
from imder_runs.cell_child import Server
from imder_runs.notebook import check_parameters
from imder_runs.reproduce import NOTEBOOKS

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


BAD = {nan: "'valid', key 'vision', row 2", missing_split: "no split 'test'", swapped_axes: "swap the last two axes"}


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "."), "has no manifest.json: give a pickle file"),
        (("pretrain", "synthetic", "p.pth"), "ends in .safetensors"),
        (("run", "01_data"), "did you mean 01_data.ipynb?"),
        (("run", "01_data.ipynb", "out.txt"), "ends in .ipynb"),
        (("status", ".", "--watch", "nan"), "watch must be a number of seconds of at least 0, got nan"),
        (("sweep", "--memory", "inf"), "memory must be a number of GB of at least 0, got inf"),
        (("sweep", "--rates", "2"), "unknown rate 2.0: expected one or more of"),
        (("sweep", "grid.yaml", "--profile", "smoke"), "grid.yaml says what to train: write profile there"),
        (("sweep", "grid.yaml", "--seeds", "1,2"), "grid.yaml says what to train: write seeds there"),
    ],
)
def test_mistakes_are_said_with_what_to_do(imder, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    refused(imder, tmp_path, arguments, message)


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


def test_it_starts_without_packages_that_few_commands_need():
    code = "import sys, imder_runs.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" in loaded
    assert not {"sklearn", "scipy.stats", "seaborn", "nbformat", "papermill", "distributed"} & set(loaded)


def test_usage_errors(imder):
    assert "reproduce" in imder("--help")[1]
    for arguments in (["reproduec"], ["check"], ["check", "a", "b"]):
        code, _, error = imder(*arguments)
        assert (code, error.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--profile", "quik"), "unknown profile 'quik': did you mean quick? expected one of"),
        (("--profile", "Full", "--seeds", "1"), "did you mean full?"),
        (("--recipe", "relased"), "unknown recipe 'relased': did you mean released? expected one or more of"),
        (("--text", "bert-frozn"), "unknown text route 'bert-frozn': did you mean bert-frozen?"),
        (("--dataset", "syntetic"), "no data at 'syntetic': did you mean synthetic?"),
        (("--at-once", "-1"), "at_once must be a whole number of at least 0"),
    ],
)
def test_a_near_name_is_suggested(imder, tmp_path, option, message):
    refused(imder, tmp_path, ("reproduce", *option, "--out", tmp_path / "out"), message)


def test_near_names_of_samplers_and_of_notebook_parameters():
    with pytest.raises(UserError, match=r"unknown sampler .dpmpp_2n.: did you mean dpmpp_2m\?"):
        Sampler("dpmpp_2n")
    with pytest.raises(UserError, match=r"03_recovery.ipynb has no parameter 'mising_rate': did you mean missing\?"):
        check_parameters(NOTEBOOKS / "03_recovery.ipynb", {"mising_rate": 0.3})


def write_file(path, modalities, T=4):
    rng, value = np.random.default_rng(0), {"modalities": list(modalities)}
    for split, n in {"train": 24, "valid": 12, "test": 12}.items():
        value[split] = {m: rng.standard_normal((n, T, D)).astype(np.float32) for m, D in modalities.items()}
        value[split] |= {"regression_labels": rng.uniform(-3, 3, n), "id": [f"{split}{i}" for i in range(n)]}
    path.write_bytes(pickle.dumps(value))
    return path


TWO = {"text": 6, "audio": 2}


def test_a_sweep_with_two_modalities(imder, tmp_path):
    path, out = write_file(tmp_path / "two.pkl", TWO), tmp_path / "a" / "out"
    command = ("sweep", "--dataset", path, "--out", out, "--profile", "smoke", "--epochs", 1, "--steps", 2)
    refused(imder, tmp_path, (*command, "--rates", "0.5,0.6"), "rate 0.6 is not possible for 2 modalities")
    refused(imder, tmp_path, (*command, "--recipe", "released"), "recipe 'released' needs three modalities")
    code, _, error = imder(*command, "--seeds", 1)
    assert (code, error) == (0, "")
    random = pd.read_csv(out / "tables" / "05_paper_random_staged.csv")
    assert sorted(random["case"].unique()) == [0, 0.1, 0.2, 0.3, 0.4, 0.5]


def test_a_pretrained_model_that_does_not_fit_is_said_at_the_start(imder, file, tmp_path):
    done = imder("pretrain", file, tmp_path / "p.safetensors", "--profile", "smoke", "--epochs", 1)
    assert done[0] == 0, done
    command = (
        "reproduce",
        "--dataset",
        file,
        "--out",
        tmp_path / "a" / "out",
        "--pretrained",
        tmp_path / "p.safetensors",
    )
    refused(imder, tmp_path, (*command, "--profile", "full"), "p.safetensors does not fit profile full and these data")
    other = write_file(tmp_path / "two.pkl", TWO)
    refused(imder, tmp_path, (*command[:2], other, *command[3:], "--profile", "smoke"), "does not fit profile smoke")
    (tmp_path / "p.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    refused(imder, tmp_path, (*command, "--profile", "smoke"), "run git lfs pull")


def test_a_bad_bert_leaves_no_folder(imder, tmp_path, monkeypatch):
    content_, bert = content(), tmp_path / "bert"
    for split, n in SPLITS.items():
        content_[split]["text_bert"] = np.ones((n, 3, 4))
    path = tmp_path / "mine.pkl"
    path.write_bytes(pickle.dumps(content_))
    bert.mkdir()
    (bert / "config.json").write_text('{"model_type": "bert"}')
    (bert / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    monkeypatch.setattr(setup, "BERT_FOLDER", bert)
    plain = write_file(tmp_path / "plain.pkl", TWO)
    refused(imder, tmp_path, ("pretrain", plain, tmp_path / "p.safetensors", "--text", "bert-finetune"), "no text_bert")
    for text in ("bert-frozen", "bert-finetune"):
        for command in (
            ("reproduce", "--dataset", path, "--out", tmp_path / "out"),
            ("pretrain", path, tmp_path / "p.safetensors"),
        ):
            profile = ("--profile", "smoke", "--text", text)
            refused(imder, tmp_path, (*command, *profile), "model.safetensors: it is a git-lfs pointer")


def test_a_locale_without_utf_8(file, tmp_path, write_notebook):
    path = tmp_path / "数据.pkl"
    path.write_bytes(file.read_bytes())
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "imder_runs.cli"]
    for arguments in (["convert", path, tmp_path / "转换"], ["check", tmp_path / "转换"], ["check", tmp_path / "没有"]):
        done = subprocess.run([*command, *arguments], env=os.environ | plain, capture_output=True, text=True)
        assert "Traceback" not in done.stderr
        assert done.returncode == (2 if "没有" in str(arguments) else 0), done.stderr
    source = write_notebook('text: str = ""  # any', "print(text, open(text).name)\nprint('数据')", name="笔记")
    arguments = ["run", source, tmp_path / "完成.ipynb", "-p", f"text={path}"]
    done = subprocess.run([*command, *arguments], env=os.environ | plain, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "数据\\n" in (tmp_path / "完成.ipynb").read_text(encoding="utf-8")
    write_text(tmp_path / "a.txt", os.fsencode("数据").decode("ascii", "surrogateescape"))
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "数据"


def test_a_file_that_cannot_be_trained_on(imder, file):
    value = content()
    for split, part in value.items():
        part["available"] = np.tile([True, True, False], (SPLITS[split], 1))
    file.write_bytes(pickle.dumps(value))
    code, text, _ = imder("check", file)
    assert code == 0
    assert text.splitlines()[-1] == "it can be read, no more"


def test_a_run_is_not_continued_on_other_data(imder, file, tmp_path, monkeypatch):
    monkeypatch.setattr("imder_runs.reproduce.run_jobs", lambda jobs, at_once: [])
    monkeypatch.setattr("imder_runs.reproduce.write_report", lambda folder, provenance, metric: folder)
    command = ("reproduce", "--dataset", file, "--out", tmp_path / "out", "--profile", "smoke")
    assert imder(*command)[0] == 0
    assert imder(*command, "--resume")[0] == 0
    value = content()
    value["train"]["text"][0] += 1
    file.write_bytes(pickle.dumps(value))
    refused(imder, tmp_path, (*command, "--resume"), "holds a run on other data")


def test_pretraining_that_was_cut_off_after_its_result(imder, file, tmp_path, monkeypatch):
    path = tmp_path / "p.safetensors"
    command = ("pretrain", file, path, "--profile", "smoke", "--epochs", "1")
    with monkeypatch.context() as cut:
        cut.setattr("imder_runs.reproduce.shutil", SimpleNamespace(rmtree=lambda folder: None))
        assert imder(*command)[0] == 0
    before = path.read_bytes()
    refused(imder, tmp_path, command, "p.safetensors exists already: name another result, or remove it")
    assert imder(*command, "--resume")[0] == 0
    assert path.read_bytes() == before
    assert not path.with_suffix(".run").exists()
    refused(imder, tmp_path, (*command, "--resume"), "exists already")
    path.unlink()
    assert imder(*command)[0] == 0
    assert path.exists()


def test_a_long_message_of_a_cell_arrives(tmp_path, monkeypatch):
    (tmp_path / "long_message.py").write_text("def body(*_):\n    raise ValueError('x' * 200_000)\n")
    monkeypatch.syspath_prepend(tmp_path)
    server = Server()
    try:
        job = {"body": "long_message:body", "settings": {}, "folder": str(tmp_path), "stage": ""}
        message = server.run(job | {"cores": [0], "threads": 1, "memory": 0}, lambda: True, 1.0)
    finally:
        server.close()
    assert message.startswith("ValueError: xxx")
    assert len(message) == 1000
