"""The short form of faults.py: a sweep whose processes are killed ends as if nothing had happened."""

import subprocess
import sys
from pathlib import Path


def test_killed_at_random():
    script = Path(__file__).with_name("faults.py")
    options = ["--workers", "0", "--kills", "2", "--cells", "30", "--sleep", "0.1", "--within", "2"]
    done = subprocess.run([sys.executable, str(script), *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killed" in done.stdout
    assert "'finished'" in done.stdout
