"""One cell on a worker: its lock, its process, and its folder, which appears whole or not at all."""

import importlib
import json
import os
import shutil
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imder_lib.experiment.parallel import own_cores
from imder_lib.files import write_text
from imder_runs.cell_child import Server
from imder_runs.cells import METRICS
from imder_runs.locks import BEAT, STALE, Lock, acquire, newest

CELLS, WORK = "cells", "unfinished"  # folders of a sweep
ERROR = "error.json"
BODY = "imder_runs.cells:train_and_test"
Result = dict[str, Any]  # name, state ("done", "failed" or "busy"), error, seconds


@dataclass(frozen=True)
class How:
    """How to run the cells of one sweep.

    Attributes:
        folder: of the sweep, the same on all machines.
        body: "module:function" of (settings, folder, stage), which fills a cell's folder.
        child: each cell has a process of its own.
        workers: processes that share this machine's cores; 0: the worker has all that it may use.
        threads: of each cell; 0: OMP_NUM_THREADS of the worker, or one for each of the cell's cores.
        memory: bytes of each cell; 0: no limit.
        beat, stale: see :mod:`imder_runs.locks`.
    """

    folder: str
    body: str = BODY
    child: bool = True
    workers: int = 0
    threads: int = 0
    memory: int = 0
    beat: float = BEAT
    stale: float = STALE


_servers: list[Server] = []  # idle ones of this process


def run_cell(job: dict[str, Any]) -> Result:
    """Run one cell on a worker.

    Args:
        job: name, settings, needs (see :class:`imder_runs.cells.Cell`), replaceable (see
            :func:`imder_runs.locks.acquire`), and how: the fields of :class:`How`.
    """
    how, name, begun = How(**job["how"]), job["name"], time.perf_counter()
    work, target = Path(how.folder) / WORK / name, Path(how.folder) / CELLS / name
    try:
        if target.exists():
            return result_of(name)
        lock = acquire(work, job["replaceable"])
        if lock is None:
            return result_of(name, "busy")
        try:
            error = "" if target.exists() else _attempt(job, how, lock, target)  # finished before the lock was made
            if error and newest(work) != lock.n:
                return result_of(name, "busy")  # taken over
            if error:
                found = {"error": error, "host": socket.gethostname(), "attempts": _attempts(work) + 1}
                with suppress(OSError, ValueError):  # a full disk: the error goes to the caller alone
                    write_text(work / ERROR, json.dumps(found))
        finally:
            lock.release()
        if not error:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as fault:
        error = f"{fault.filename or name}: {fault.strerror or fault}"
    seconds = time.perf_counter() - begun
    return result_of(name, "failed" if error else "done", error, seconds)


def result_of(name: str, state: str = "done", error: str = "", seconds: float = 0.0) -> Result:
    return {"name": name, "state": state, "error": error, "seconds": seconds}


def _attempts(work: Path) -> int:
    with suppress(OSError, ValueError, KeyError, TypeError):
        return int(json.loads((work / ERROR).read_text(encoding="utf-8"))["attempts"])
    return 0


def _attempt(job: dict[str, Any], how: How, lock: Lock, target: Path) -> str:
    """Fill and publish a cell's folder; return "" or the error."""
    folder = _continued(lock, afresh=_attempts(lock.work) > 1)
    root, begun = Path(how.folder), time.time()
    _note(folder / "settings.json", job["settings"] | {"needs": job["needs"]})
    stage = root / CELLS / job["needs"] if job["needs"] else None
    own = {"body": how.body, "settings": job["settings"], "folder": str(folder), "stage": str(stage or "")}
    cores = _cores(how.workers)
    threads = how.threads or own_threads() or len(cores)
    own |= {"cores": cores, "threads": threads, "memory": how.memory}
    if how.child:
        server = _servers.pop() if _servers else Server()
        error = server.run(own, lock.beat, how.beat)
        if server.usable:
            _servers.append(server)
    else:
        error = run_here(own)
    if error:
        return error
    if not (folder / METRICS).exists():
        return f"the cell wrote no {METRICS}"
    note = {"host": socket.gethostname(), "seconds": round(time.time() - begun, 3), "threads": own["threads"]}
    _note(folder / "provenance.json", note | {"attempts": _attempts(lock.work) + 1})
    target.parent.mkdir(exist_ok=True)
    try:
        folder.rename(target)
    except OSError:  # two ran it, and the other was faster: a folder that is not empty is never replaced
        if not target.exists():
            raise
    return ""


def _note(path: Path, value: dict[str, Any]) -> None:
    """Write a file of an unpublished folder; plain, because the folder's name makes it whole."""
    path.write_text(json.dumps(value, indent=1), encoding="utf-8", errors="surrogateescape")


def run_here(own: dict[str, Any]) -> str:
    """Run a cell's body in this process, for cells that cost less than a process."""
    module, _, name = own["body"].partition(":")
    try:
        stage = Path(own["stage"]) if own["stage"] else None
        getattr(importlib.import_module(module), name)(own["settings"], Path(own["folder"]), stage)
    except Exception as error:
        return str(error).split("\n")[0] or type(error).__name__
    return ""


def _continued(lock: Lock, afresh: bool) -> Path:
    """The folder of this attempt: what a former one has left, under a name that no other process writes to."""
    folder = lock.work / f"part.{lock.n}"
    left = sorted(p for p in lock.work.glob("part.*") if p != folder)
    if left and not folder.exists() and not afresh:
        left[-1].rename(folder)
    for path in (*left, *([folder] if afresh else [])):
        shutil.rmtree(path, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    for part in folder.rglob(".*.part"):  # half-written by a process that may still live
        shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
    return folder


def own_threads() -> int:
    """What OMP_NUM_THREADS says, a list of numbers by depth of nesting; 0: nothing. Dask's workers set it anew."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() else 0


def _cores(workers: int) -> list[int]:
    """The cores of a cell: those of this process, or this worker's share if ``workers`` of them are on the machine.

    A cell also computes batches at once on cores that its threads leave idle, so it must know which are its own.
    """
    cores = own_cores()
    if not workers:
        return cores
    from distributed import get_worker  # the extra is installed: there are workers

    number = int(get_worker().name)  # from 0, see dask_pool.local_cluster
    return cores[number::workers] or [cores[number % len(cores)]]


def close_servers() -> None:
    """End the idle servers of this process."""
    while _servers:
        _servers.pop().close()
