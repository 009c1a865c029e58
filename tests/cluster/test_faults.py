"""The short form of faults.py: a sweep whose processes are killed ends as if nothing had happened."""

import subprocess
import sys
from pathlib import Path


def test_killed_at_random():
    script = Path(__file__).with_name("faults.py")
    options = ["--workers", "0", "--kills", "3", "--cells", "40", "--sleep", "0.1", "--within", "8"]
    done = subprocess.run([sys.executable, str(script), *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'finished': 1" in done.stdout
