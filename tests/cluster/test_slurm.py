"""The batch file for SLURM, on a real SLURM that runs on this machine alone; its workers are killed."""

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
def test_a_batch_job_that_loses_all_workers_is_submitted_again_and_loses_one(tmp_path):
    pytest.importorskip("distributed")
    grid, cells = tmp_path / "grid.yaml", tmp_path / "out" / "cells"
    grid.write_text(
        "profile: smoke\nseeds: [1, 2, 3]\nrecoverers: dropout\nfusion: shared\nepochs: 1\nsteps: 2\nrates: [0.3]\n"
    )
    bin_ = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{bin_}:{os.environ['PATH']}:/usr/sbin:/sbin"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)

    def submit(killed):
        """The job loses a process when it has finished a cell; its exit code and log."""
        before = len(list(cells.glob("*")))
        batch = [HERE.parents[1] / "sweeps" / "slurm.sh", grid, tmp_path / "out"]
        command = [HERE / "slurm.sh", "--ntasks=2", "--output", tmp_path / killed, *batch]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(command, env=environment, cwd=tmp_path, **pipes) as job:
            while job.poll() is None and len(list(cells.glob("*"))) == before:
                time.sleep(0.1)
            workers_of(tmp_path)[killed][0].kill()
            said, _ = job.communicate(timeout=300)
        log = (tmp_path / killed).read_text() if (tmp_path / killed).exists() else ""
        assert "tls://" in log
        assert list(tmp_path.glob(".imder-job.*")) == []  # the keys are gone
        return job.returncode, said + log

    code, log = submit("srun")
    assert code == 1, log
    assert "all workers are gone" in log
    code, log = submit("worker")
    assert code == 0, log
    assert len(list(cells.iterdir())) == 4
