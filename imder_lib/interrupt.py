"""Ctrl-C at the command line: one line and exit code 130, also while the command still imports its libraries."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

CODE = 130
RESUMED = ("reproduce", "sweep", "pretrain")


def interrupted() -> str:
    """What to do after an interruption of this command."""
    return f"interrupted: {'continue with --resume' if sys.argv[1:2] and sys.argv[1] in RESUMED else 'run it again'}"


def _stop(number: int, frame: FrameType | None) -> None:
    """End at once: nothing is open yet, and a library may catch KeyboardInterrupt while it is imported."""
    os.write(2, f"imder: {interrupted()}\n".encode())
    os._exit(CODE)


def restore() -> None:
    """Imports are done: from now on Ctrl-C raises KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_command = Path(sys.argv[0]).stem == "imder" or (sys.argv[0] == "-m" and "imder_lib.cli" in sys.orig_argv)
if _command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _stop)
