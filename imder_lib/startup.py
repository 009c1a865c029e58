"""The wait policy of OpenMP threads, which is set before PyTorch is imported."""

import os
import sys
from collections.abc import MutableMapping

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # read by OpenMP libraries


def set_waiting(environment: MutableMapping[str, str], loaded: bool) -> str:
    """Make waiting OpenMP threads sleep, unless the user has set a wait policy; return the policy in effect.

    By default they spin and keep their cores busy. If other processes use the machine, threads with work then wait for
    these cores, and a training step can take many times as long (see benchmarks/threads.py).

    ``environment`` is that of this process or of one to be started; where PyTorch is ``loaded``, OpenMP has read it.
    """
    if own := [f"{k}={environment[k]}" for k in VARIABLES if k in environment]:
        return ", ".join(own)
    if loaded:
        return "not set: torch was imported first"
    environment["OMP_WAIT_POLICY"] = "passive"
    return "OMP_WAIT_POLICY=passive"


WAITING = set_waiting(os.environ, loaded="torch" in sys.modules)
