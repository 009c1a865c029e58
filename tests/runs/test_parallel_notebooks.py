"""Notebooks that run at the same time, and trainings that must not."""

import subprocess
import sys
import threading
import time
from functools import partial

import pytest
import torch

from imder_lib.experiment import parallel
from imder_runs import parallel_notebooks
from imder_runs.locks import acquire, held, started
from imder_runs.notebook import run_notebook
from imder_runs.parallel_notebooks import notebook_threads, notebooks_at_once, run_jobs

WAITS = """from pathlib import Path
import time
Path("{own}").write_text("")
while not Path("{other}").exists():
    time.sleep(0.05)
"""
SLEEPS = """from pathlib import Path
import os, time
Path("pid").write_text(str(os.getpid()))
time.sleep(600)
"""
FAILS = """from pathlib import Path
import time
while not (Path("pid").exists() and Path("pid").read_text()):
    time.sleep(0.05)
raise ValueError("no")
"""


@pytest.fixture
def job(write_notebook, tmp_path):
    """A job that executes a notebook with one cell of code, in tmp_path."""

    def make(name, code):
        path = write_notebook("", f"import os\nos.chdir({str(tmp_path)!r})\n{code}", name=name)
        return partial(run_notebook, path, tmp_path / "executed" / path.name, shown=False, timeout=120)

    return make


def test_notebooks_run_at_once(job):
    jobs = {"a": job("a", WAITS.format(own="1", other="2")), "b": job("b", WAITS.format(own="2", other="1"))}
    assert sorted(name for name, _ in run_jobs(jobs, 2)) == ["a", "b"]


def test_a_failure_ends_the_others_and_starts_no_more(job, tmp_path):
    jobs = {"sleeps": job("sleeps", SLEEPS), "fails": job("fails", FAILS)}
    jobs |= {"later": lambda: (tmp_path / "later").write_text("")}
    with pytest.raises(RuntimeError, match=r"fails\.ipynb failed: ValueError: no"):
        list(run_jobs(jobs, 2))
    assert started(int((tmp_path / "pid").read_text())) is None
    assert not (tmp_path / "later").exists()


def test_a_second_training_in_a_folder_waits(tmp_path):
    entered = threading.Event()

    def second():
        with held(tmp_path, every=0.01):
            entered.set()

    with held(tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.3)
        assert not entered.is_set()
    thread.join(timeout=30)
    assert entered.is_set()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_an_interrupt_left_in_this_process_is_replaced(tmp_path):
    acquire(tmp_path)
    with held(tmp_path):
        assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_process_that_was_killed_is_replaced(tmp_path):
    code = f"""
import os
from pathlib import Path
from imder_runs.locks import acquire
acquire(Path({str(tmp_path)!r}))
os._exit(1)
"""
    subprocess.run([sys.executable, "-c", code], check=False, timeout=120)
    assert [path.name for path in tmp_path.iterdir()] == ["lock.0"]
    with held(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == ["lock.0", "lock.1"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("device", "given", "threads", "at_once"),
    [
        ("cpu", {}, 1, 2),
        ("cpu", {"OMP_NUM_THREADS": ""}, 1, 2),
        ("cpu", {"OMP_NUM_THREADS": "2"}, 0, 1),
        ("cpu", {"MKL_NUM_THREADS": "2"}, 0, 1),
        ("meta", {}, 0, 1),
    ],
)
def test_small_nets_get_one_thread_on_a_cpu_unless_told(monkeypatch, device, given, threads, at_once):
    for name in parallel_notebooks.TOLD:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(parallel_notebooks, "default_device", lambda: torch.device(device))
    monkeypatch.setattr(parallel, "own_cores", lambda: [0, 1])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert notebook_threads() == threads
    assert notebooks_at_once(threads) == at_once
