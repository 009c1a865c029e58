"""Batches of a long computation, several at once where cores are idle, and the bars of long computations."""

import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from typing import TypeVar

import torch
from tqdm.auto import tqdm

Result = TypeVar("Result")
SHORT = 2.0  # seconds; a computation that takes less shows no bar


def own_cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def idle_cores(device: torch.device | str, threads: int = 0) -> int:
    """How many computations on ``threads`` (0: PyTorch's) each fit on this process's cores at once; 1 on a GPU."""
    if torch.device(device).type != "cpu":
        return 1
    return max(1, len(own_cores()) // (threads or torch.get_num_threads()))


def progress_bar(total: int, name: str, begun: int = 0) -> tqdm:
    """A bar of ``total`` steps, of which ``begun`` are done, in a terminal or in JupyterLab.

    Elsewhere it is off, so that no saved notebook holds one. A program that executes a notebook is recognised by
    ``allow_stdin``, which it sets to False with each cell.
    """
    ipython = sys.modules.get("IPython")  # loaded in every kernel
    kernel = getattr(ipython and ipython.get_ipython(), "kernel", None)
    watched = kernel.get_parent().get("content", {}).get("allow_stdin") if kernel else sys.stderr.isatty()
    with redirect_stdout(sys.stdout or sys.__stdout__):  # a notebook may have switched it off, and Jupyter flushes it
        return tqdm(total=total, desc=name, initial=begun, unit="batch", leave=False, disable=not watched)


def over_batches(
    size: int, batch_size: int, run: Callable[[slice], Result], device: torch.device | str
) -> list[Result]:
    """Results of ``run`` for each batch of rows, in order, without gradient.

    Batches must not depend on each other; random numbers come from a SampleNoise, so they are the same in any order.
    """

    @torch.no_grad()  # a thread starts with gradients
    def one(start: int) -> Result:
        return run(slice(start, min(start + batch_size, size)))

    starts = range(0, size, batch_size)
    workers, results, begun, bar = min(idle_cores(device), len(starts)), [], time.perf_counter(), None
    pool = ThreadPoolExecutor(workers) if workers > 1 else None
    try:
        for result in pool.map(one, starts) if pool else map(one, starts):
            results.append(result)
            if bar is not None:
                bar.update()
            elif time.perf_counter() - begun > SHORT and len(results) < len(starts):
                bar = progress_bar(len(starts), "batches", len(results))
    finally:
        if bar is not None:
            bar.close()
        if pool:
            pool.shutdown(cancel_futures=True)  # after an error or an interruption, batches that wait do not start
    return results
