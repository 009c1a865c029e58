"""The OpenMP wait policy is passive, unless the user has set another or PyTorch is imported already."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from imder_lib.startup import VARIABLES, set_waiting
from imder_runs import notebook as runner

ROOT = Path(__file__).resolve().parents[1]
SHOW = "import os; print({k: os.environ[k] for k in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT') if k in os.environ})"
PROVENANCE = """
from imder_runs.setup import start_run
print(start_run("synthetic", "smoke", "1", {!r}).provenance()["threads_waiting"])
"""


def run(*command, **own):
    environment = {k: v for k, v in os.environ.items() if k not in VARIABLES} | {"PYTHONPATH": str(ROOT)} | own
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()


def test_policy_is_set_on_import_and_stored_in_provenance(tmp_path):
    lines = run(sys.executable, "-c", "import imder_lib\n" + SHOW + PROVENANCE.format(str(tmp_path)))
    assert lines == ["{'OMP_WAIT_POLICY': 'passive'}", "OMP_WAIT_POLICY=passive"]


def test_nothing_is_set_after_pytorch():
    code = "import torch, imder_lib\n" + SHOW + "\nprint(imder_lib.startup.WAITING)"
    assert run(sys.executable, "-c", code) == ["{}", "not set: torch was imported first"]


@pytest.mark.parametrize("name", VARIABLES)
def test_the_users_value_is_kept(name):
    environment = {name: "7"}
    assert set_waiting(environment, loaded=False) == f"{name}=7"
    assert environment == {name: "7"}


def test_the_users_value_is_kept_on_import():
    assert run(sys.executable, "-c", "import imder_lib\n" + SHOW, GOMP_SPINCOUNT="7") == ["{'GOMP_SPINCOUNT': '7'}"]


@pytest.mark.parametrize(("own", "expected"), [({}, "passive"), ({"GOMP_SPINCOUNT": "7"}, None)])
def test_a_notebook_process_gets_the_policy_even_after_pytorch(monkeypatch, own, expected):
    seen = {}

    def popen(command, env, **pipes):
        seen.update(env)
        raise OSError

    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(OSError):
        runner._child("{}", 1, 0)
    assert seen.get("OMP_WAIT_POLICY") == expected


@pytest.mark.parametrize(("own", "expected"), [({}, ["passive"]), ({"KMP_BLOCKTIME": "0"}, [])])
def test_make_sets_the_policy(tmp_path, own, expected):
    extra = tmp_path / "show.mk"
    extra.write_text('include Makefile\nshow:\n\t@echo "$$OMP_WAIT_POLICY"\n')
    assert run("make", "--no-print-directory", "-f", str(extra), "show", **own) == expected
