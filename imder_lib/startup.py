"""What must happen before the libraries are imported: the handling of Ctrl-C, and the wait policy of OpenMP threads.

An interrupted command ends with one line and exit code 130, also while it still imports its libraries.
"""

import os
import signal
import sys
from collections.abc import MutableMapping
from pathlib import Path
from types import FrameType

INTERRUPTED = 130  # exit code
RESUMED = ("reproduce", "sweep", "pretrain")
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # read by OpenMP libraries


def interrupted() -> str:
    """The message after an interruption: how to continue this command."""
    return f"interrupted: {'continue with --resume' if sys.argv[1:2] and sys.argv[1] in RESUMED else 'run it again'}"


def _stop(number: int, frame: FrameType | None) -> None:
    """End at once: nothing is open yet, and a library may catch KeyboardInterrupt while it is imported."""
    os.write(2, f"imder: {interrupted()}\n".encode())
    os._exit(INTERRUPTED)


def restore_interrupt() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again; called when all imports are done."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def set_waiting(environment: MutableMapping[str, str], loaded: bool) -> str:
    """Make waiting OpenMP threads sleep, unless the user has set a wait policy; return the policy in effect.

    By default they spin and keep their cores busy. If other processes use the machine, threads with work then wait for
    these cores, and a training step can take many times as long (see benchmarks/threads.py).

    Args:
        environment: of this process, or of a process to be started.
        loaded: PyTorch is imported there, so OpenMP has read the variables already.
    """
    if own := [f"{k}={environment[k]}" for k in VARIABLES if k in environment]:
        return ", ".join(own)
    if loaded:
        return "not set: torch was imported first"
    environment["OMP_WAIT_POLICY"] = "passive"
    return "OMP_WAIT_POLICY=passive"


_command = Path(sys.argv[0]).stem == "imder" or (sys.argv[0] == "-m" and "imder_runs.cli" in sys.orig_argv)
if _command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _stop)
WAITING = set_waiting(os.environ, loaded="torch" in sys.modules)
