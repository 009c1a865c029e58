"""Several notebooks at once."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress

from imder_lib.experiment.parallel import idle_cores
from imder_runs.notebook import end_running
from imder_runs.setup import default_device

AT_ONCE = 2  # at most, unless told; more would wait for each other's models
TOLD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # PyTorch reads both


def notebook_threads() -> int:
    """PyTorch's threads in each notebook that trains small nets: one on a CPU; 0 (its own choice) if you have set it.

    Small nets train fastest on one thread, which leaves cores to the other notebook and to batches.
    """
    return 0 if default_device().type != "cpu" or any(os.environ.get(name) for name in TOLD) else 1


def notebooks_at_once(threads: int) -> int:
    """Two on a CPU that has cores for both, else one."""
    return min(AT_ONCE, idle_cores(default_device(), threads))


def run_jobs(jobs: Mapping[str, Callable[[], None]], at_once: int) -> Iterator[tuple[str, float]]:
    """Do jobs that execute notebooks, ``at_once`` at a time; yield the name and the seconds of each when it ends.

    If a job fails or this process is interrupted, no other job starts, and notebooks that run are ended.
    """

    def timed(job: Callable[[], None]) -> float:
        begun = time.perf_counter()
        try:
            job()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # here, before this thread takes the next job
            raise
        return time.perf_counter() - begun

    pool, names = ThreadPoolExecutor(at_once), {}
    try:
        names |= {pool.submit(timed, job): name for name, job in jobs.items()}
        for future in as_completed(names):
            if not future.cancelled():
                yield names[future], future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        while not all(future.done() for future in names):
            with suppress(KeyboardInterrupt):  # a second one must not leave a notebook running
                end_running()
                time.sleep(0.1)
