"""How PyTorch's threads wait for one another: set here, once, before PyTorch loads."""

import os
import sys
from collections.abc import MutableMapping

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # what OpenMP's libraries read about waiting
NAME, VALUE = "OMP_WAIT_POLICY", "passive"


def set_waiting(environment: MutableMapping[str, str] = os.environ, loaded: bool | None = None) -> str:
    """Let a thread that has nothing to do sleep, unless the user has said how threads wait.

    By default, a thread of an OpenMP library that waits for the others of its process spins: it keeps its core busy.
    Where anything else runs on the machine, a thread that still has work then waits for that core, and a training step
    takes many times as long (benchmarks/threads.py measures it). The library reads its variables when it is loaded,
    which is when PyTorch is imported: later changes do nothing.

    Args:
        environment: of this process, or of one that is to be started.
        loaded: PyTorch has been imported there; None: as it is in this process.

    Returns:
        what is in force, for provenance
    """
    own = [f"{k}={environment[k]}" for k in VARIABLES if k in environment]
    if own:
        return ", ".join(own)
    if loaded or (loaded is None and "torch" in sys.modules):
        return "not set: torch was imported first"
    environment[NAME] = VALUE
    return f"{NAME}={VALUE}"


WAITING = set_waiting()  # of this process: imder_lib imports this module before any other
