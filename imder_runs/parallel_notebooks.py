"""Several notebooks at once."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress

from imder_runs.notebook import end_running


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
