"""The batch file for SLURM, on a real SLURM that runs on this machine alone; one of its workers is killed."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

HERE = Path(__file__).resolve().parent
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "openssl")
MISSING = [p for p in PROGRAMS if not shutil.which(p, path=os.environ["PATH"] + ":/usr/sbin:/sbin")]


def workers_of(folder):
    """Processes "dask worker" of the job that was started in a folder, and srun, by name."""
    found = [(p, p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline", "name"])]
    own = [p for p, line in found if "worker" in line and any(x.startswith(f"{folder}/.imder-job") for x in line)]
    return {name: [p for p in own if (p.info["name"] == "srun") is (name == "srun")] for name in ("worker", "srun")}


@pytest.mark.skipif(bool(MISSING), reason=f"SLURM is not installed: no {', '.join(MISSING)}")
@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="starting SLURM needs root")
@pytest.mark.parametrize("killed", ["worker", "srun"])
def test_a_sweep_as_a_batch_job_that_loses_a_worker_or_all(tmp_path, killed):
    pytest.importorskip("distributed")
    grid = tmp_path / "grid.yaml"
    grid.write_text("profile: smoke\nseeds: [1, 2]\nrecoverers: dropout\nepochs: 1\nsteps: 2\nrates: [0.3]\n")
    bin_ = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{bin_}:{os.environ['PATH']}:/usr/sbin:/sbin"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    batch = [HERE.parents[1] / "sweeps" / "slurm.sh", grid, tmp_path / "out"]
    command = [HERE / "slurm.sh", "--ntasks=2", "--output", tmp_path / "log", *batch]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=environment, cwd=tmp_path, **pipes) as job:
        while job.poll() is None and not list(tmp_path.glob("out/cells/*")):
            time.sleep(0.1)
        workers_of(tmp_path)[killed][0].kill()
        said, _ = job.communicate(timeout=300)
    log = (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
    assert "tls://" in log
    if killed == "worker":
        assert job.returncode == 0, said + log
        assert len(list((tmp_path / "out" / "cells").iterdir())) == 4
    else:
        assert job.returncode == 1, said + log
        assert "all workers are gone" in log
    assert list(tmp_path.glob(".imder-job.*")) == []  # the keys are gone
