"""Workers of Dask (the extra "cluster"): processes on this machine, or those of a scheduler that runs already."""

import logging
import os
import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from distributed import Client, Future, Nanny, Scheduler, SpecCluster

from imder_lib.errors import UserError
from imder_runs.attempt import Result, result_of, run_cell

LOOPBACK = "127.0.0.1"
PATIENCE = 60  # seconds until a scheduler must have answered


@dataclass
class DaskPool:
    """Runs jobs on the workers of a client."""

    client: Client
    resources: dict[str, float]  # that each job takes
    window: int = 2000
    jobs: dict[Future, str] = field(default_factory=dict)  # -> name of the cell
    ended: queue.SimpleQueue[Future] = field(default_factory=queue.SimpleQueue)
    count: int = 0

    def submit(self, jobs: list[dict[str, Any]]) -> None:
        self.count += 1  # part of the keys: Dask would take a second attempt for the first
        keys = [f"{job['name']}-{self.count}" for job in jobs]
        futures = self.client.map(run_cell, jobs, key=keys, resources=self.resources, pure=False, batch_size=500)
        for future, job in zip(futures, jobs, strict=True):
            self.jobs[future] = job["name"]
            future.add_done_callback(self.ended.put)

    def results(self, wait: float) -> list[Result]:
        futures = []
        try:
            futures.append(self.ended.get(timeout=wait))
            time.sleep(0.1)  # results are fetched together: one call for each would cost more than cheap cells
            while True:
                futures.append(self.ended.get_nowait())
        except queue.Empty:
            pass
        if not futures and self.client.status in ("closing", "closed"):
            raise RuntimeError("the scheduler is gone: start it and its workers, then give the same command "
                               "again (without a grid file: with --resume)")  # fmt: skip
        good = [f for f in futures if f.status == "finished"]
        found = [r for r in self.client.gather(good, errors="skip") if r]
        known = {r["name"] for r in found}
        for future in futures:
            name = self.jobs.pop(future)
            if name not in known and future.status == "error":  # workers that died again and again
                found.append(result_of(name, "failed", str(future.exception()).split("\n")[0]))
            elif name not in known:
                found.append(result_of(name, "busy"))  # lost with a scheduler or a worker: looked at again
        return found


def local_cluster(workers: int) -> SpecCluster:
    """A scheduler in this process and worker processes, on loopback, each with a GPU of its own if there are any."""
    gpus = torch.cuda.device_count()
    if 0 < gpus < workers:
        raise UserError(f"{workers} workers but {gpus} GPUs: each worker needs one, choose --workers {gpus} or fewer")
    options = {"host": LOOPBACK, "nthreads": 1, "memory_limit": 0, "silence_logs": logging.CRITICAL}
    specs = {}
    for i in range(workers):
        own = {"resources": {"GPU": 1}, "env": {"CUDA_VISIBLE_DEVICES": _gpu(i)}} if gpus else {}
        specs[i] = {"cls": Nanny, "options": options | own}
    ports = {"port": 0, "dashboard": False, "dashboard_address": f"{LOOPBACK}:0"}  # free ones, beside other sweeps
    scheduler = {"cls": Scheduler, "options": {"host": LOOPBACK} | ports}
    return SpecCluster(specs, scheduler, silence_logs=logging.CRITICAL)


def _gpu(i: int) -> str:
    """The i-th GPU of those that this process may use."""
    own = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return own.split(",")[i] if own else str(i)


@contextmanager
def connected(workers: int, scheduler: str, scheduler_file: str) -> Iterator[DaskPool]:
    """A pool on new local workers, or on the workers of a running scheduler.

    Raises:
        UserError: the scheduler does not answer.
    """
    end = time.monotonic() + PATIENCE
    while scheduler_file and not Path(scheduler_file).exists() and time.monotonic() < end:
        time.sleep(0.5)
    if scheduler_file and not Path(scheduler_file).exists():
        raise UserError(f"no scheduler has written {scheduler_file} within {PATIENCE} seconds: is it running?")
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # this command says itself what was lost
    cluster = local_cluster(workers) if workers else None
    try:
        try:
            where = {"scheduler_file": scheduler_file} if scheduler_file else {"address": cluster or scheduler}
            client = Client(**where, timeout=PATIENCE)
        except (OSError, ValueError) as error:
            raise UserError(f"no scheduler answers at {scheduler or scheduler_file}: {error!s:.120}") from None
        with client:
            own = [w["resources"] for w in client.scheduler_info(n_workers=-1)["workers"].values()]
            yield DaskPool(client, {"GPU": 1} if own and all("GPU" in r for r in own) else {})
    finally:
        if cluster:
            cluster.close()
