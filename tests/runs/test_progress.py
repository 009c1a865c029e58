"""What the command line prints while a notebook runs."""

import json
import os
import time

import pytest
from jupyter_client.manager import start_new_kernel

from imder_lib.experiment import parallel
from imder_lib.experiment.parallel import over_batches
from imder_runs.progress import newest_epochs, progress_shown, running_cell

HEAD = "stage,epoch,train,valid,lr,kept,seconds,epochs\n"


def test_the_newest_epoch_of_each_training_is_a_line(tmp_path):
    path = tmp_path / "digits" / "seed1" / "kit" / "history.csv"
    assert newest_epochs(tmp_path) == []
    path.parent.mkdir(parents=True)
    path.write_text(HEAD + "fusion,1,1.0,0.9,0.004,True,9,\ndiffusion,1,1.0,0.9,0.004,True,2.5,4\n")
    line = "  digits/seed1/kit: diffusion epoch 1/4, valid 0.9000, at most 8 s left"
    assert newest_epochs(tmp_path) == [line]
    for unread in ("", HEAD):  # a file that cannot be read yet, or has no epoch
        path.write_text(unread)
        assert newest_epochs(tmp_path) == []


def test_epochs_are_printed_once_and_those_of_before_are_not_repeated(tmp_path, capsys):
    path = tmp_path / "history.csv"
    path.write_text(HEAD + "fusion,1,1.0,0.9,0.004,True,2.5,4\n")
    with progress_shown([tmp_path / "none.ipynb"], tmp_path, every=0.02):
        time.sleep(0.2)
        assert "fusion" not in capsys.readouterr().out
        path.write_text(HEAD + "fusion,1,1.0,0.9,0.004,True,2.5,4\nfusion,2,0.8,0.7,0.004,True,2.4,4\n")
        time.sleep(0.5)
    assert capsys.readouterr().out.count("fusion epoch 2/4, valid 0.7000") == 1


def cells(running):
    """A notebook of three code cells, of which one runs."""
    status = [{"status": "running" if i == running else "pending"} for i in range(3)]
    code = [{"cell_type": "code", "source": "# no heading", "metadata": {"papermill": s}} for s in status]
    markdown = {"cell_type": "markdown", "source": ["text\n", "## Random rates\n"], "metadata": {}}
    return json.dumps({"cells": [code[0], markdown, *code[1:]]})


def test_the_running_cell_is_shown_with_its_heading(tmp_path, capsys):
    path = tmp_path / "executed.ipynb"
    for text, found in (("{", None), (cells(None), None), (cells(0), (1, 3, "")), (cells(2), (3, 3, "Random rates"))):
        path.write_text(text)
        assert running_cell(path) == found
        assert running_cell(path, since=time.time() + 10) is None
    os.utime(path, (1, 1))  # of an earlier run
    with progress_shown([path], tmp_path, every=0.02):
        time.sleep(0.2)
        assert capsys.readouterr().out == ""
        path.write_text(cells(1))
        time.sleep(0.5)
    assert capsys.readouterr().out == "  cell 2 of 3: Random rates\n"
    with progress_shown([path, tmp_path / "other.ipynb"], tmp_path, every=0.02):
        (tmp_path / "other.ipynb").write_text(cells(0))
        path.write_text(cells(2))
        time.sleep(0.5)
    shown = capsys.readouterr().out
    assert "  executed, cell 3 of 3: Random rates\n" in shown
    assert "  other, cell 1 of 3: \n" in shown


BAR = """from contextlib import redirect_stdout
from imder_lib.experiment.parallel import progress_bar
with redirect_stdout(None), progress_bar(3, "stage") as bar:  # as in notebook 05
    off = bar.disable
    bar.update(3)
print(off)
"""


@pytest.fixture(scope="module")
def kernel():
    manager, client = start_new_kernel(kernel_name="python3")
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("watched", [True, False])
def test_a_notebook_has_a_bar_only_if_somebody_looks(kernel, watched):
    outputs = []
    answer = kernel.execute_interactive(BAR, allow_stdin=watched, output_hook=outputs.append, timeout=300)
    assert answer["content"]["status"] == "ok"
    assert [m["content"]["text"] for m in outputs if m["msg_type"] == "stream"] == [f"{not watched}\n"]
    shown = [m["content"]["data"] for m in outputs if m["msg_type"] == "display_data"]
    assert ["application/vnd.jupyter.widget-view+json" in data for data in shown] == [True] * watched


def test_a_long_computation_shows_a_bar_in_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(parallel, "SHORT", 0.0)
    monkeypatch.setattr(parallel, "idle_cores", lambda device: 1)
    for terminal in (False, True):
        monkeypatch.setattr("sys.stderr.isatty", lambda terminal=terminal: terminal, raising=False)
        assert over_batches(3, 1, lambda rows: rows.start, "cpu") == [0, 1, 2]
        assert ("batches:  33%" in capsys.readouterr().err) == terminal
