"""Batches of a long computation, several at once where cores are idle."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Result = TypeVar("Result")
BATCH = 256  # samples of a batch: larger ones are no faster on a CPU, whose caches they exceed


def idle_cores(device: torch.device | str) -> int:
    """Batches that can run at once: the cores of this process, divided by PyTorch's threads; 1 on a GPU."""
    if torch.device(device).type != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // torch.get_num_threads())


def over_batches(
    size: int, batch_size: int, run: Callable[[slice], Result], device: torch.device | str
) -> list[Result]:
    """Results of ``run`` for each batch of rows, in order, without gradient.

    Batches must not depend on each other; random numbers come from a SampleNoise, so they are the same in any order.

    Args:
        size: number of rows.
        batch_size: rows per batch; the last may have fewer.
        run: function of the rows of a batch.
        device: on which ``run`` computes.
    """

    @torch.no_grad()  # a thread starts with gradients
    def one(start: int) -> Result:
        return run(slice(start, min(start + batch_size, size)))

    starts = range(0, size, batch_size)
    workers = min(idle_cores(device), len(starts))
    if workers < 2:
        return [one(start) for start in starts]
    pool = ThreadPoolExecutor(workers)
    try:
        return list(pool.map(one, starts))
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or an interruption, batches that wait do not start
