"""Ctrl-C while a command still imports its libraries: one line and exit code 130, as later."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

INTERRUPTED = 130  # exit code
RESUMED = ("reproduce", "sweep", "pretrain")


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


_command = Path(sys.argv[0]).stem == "imder" or (sys.argv[0] == "-m" and "imder_runs.cli" in sys.orig_argv)
if _command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _stop)
