"""The wait policy of OpenMP threads; it must be set before PyTorch is imported."""

import os
import sys
from collections.abc import MutableMapping

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")  # read by OpenMP libraries
NAME, VALUE = "OMP_WAIT_POLICY", "passive"


def set_waiting(environment: MutableMapping[str, str] = os.environ, loaded: bool | None = None) -> str:
    """Make waiting OpenMP threads sleep, unless the user has set a wait policy.

    By default, waiting OpenMP threads spin and keep their cores busy. If other processes use the machine, threads with
    work then wait for these cores, and a training step can take many times as long (see benchmarks/threads.py). OpenMP
    reads the variables when PyTorch is imported; later changes have no effect.

    Args:
        environment: of this process, or of a process to be started.
        loaded: whether PyTorch is imported in that process; None: check this process.

    Returns:
        the policy in effect, for provenance
    """
    own = [f"{k}={environment[k]}" for k in VARIABLES if k in environment]
    if own:
        return ", ".join(own)
    if loaded or (loaded is None and "torch" in sys.modules):
        return "not set: torch was imported first"
    environment[NAME] = VALUE
    return f"{NAME}={VALUE}"


WAITING = set_waiting()  # imder_lib imports this module first
