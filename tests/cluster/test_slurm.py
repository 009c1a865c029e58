"""The batch file for SLURM, on a real SLURM that runs on this machine alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "openssl")
MISSING = [p for p in PROGRAMS if not shutil.which(p, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]


@pytest.mark.skipif(bool(MISSING), reason=f"SLURM is not installed: no {', '.join(MISSING)}")
@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="starting SLURM needs root")
def test_a_sweep_as_a_batch_job(tmp_path):
    pytest.importorskip("distributed")
    grid = tmp_path / "grid.yaml"
    grid.write_text("profile: smoke\nseeds: [1, 2]\nrecoverers: dropout\nepochs: 1\nsteps: 2\nrates: [0.3]\n")
    bin_ = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{bin_}:{os.environ['PATH']}:/usr/sbin:/sbin"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    batch = [
        "sbatch",
        "--wait",
        "--ntasks=2",
        "--output",
        str(tmp_path / "log"),
        str(HERE.parents[1] / "sweeps/slurm.sh"),
    ]
    done = subprocess.run(
        [str(HERE / "slurm.sh"), *batch, str(grid), str(tmp_path / "out")],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    log = (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
    assert done.returncode == 0, done.stdout + done.stderr + log
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 4
    assert "tls://" in log
    assert list(tmp_path.glob(".imder-job.*")) == []  # the keys are gone
