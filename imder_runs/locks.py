"""The right to run one cell or training, held by one process at a time, on one machine or on several.

A lock is a file lock.N in the folder of unfinished work, made with O_EXCL. Its holder is the owner of the
highest N. A holder that is gone is replaced by making lock.N+1, which only one process can do. No lock of the file
system is used, and no clocks are compared: a holder on another machine is gone if its file's time does not change
while the observer's own clock counts STALE seconds.
"""

import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from imder_lib.errors import unwritable
from imder_lib.experiment.parallel import progress_bar

BEAT = 10.0  # seconds between two signs of life
STALE = 180.0  # ... without one until a holder counts as gone; NFS may show a file's time a minute late


def this_host() -> str:
    """Name of the machine, its start, and the space of process numbers, which containers do not share."""
    with suppress(OSError):
        start = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{platform.node()} {start} {os.readlink('/proc/self/ns/pid')}"
    return platform.node()


def started(pid: int) -> float | None:
    """When a process was started, on a clock that nobody sets; None if it has ended."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return None if state in "ZX" else float(rest[18])  # ticks since the machine was started
    except OSError:
        with suppress(psutil.Error):
            return None if Path("/proc/self/stat").exists() else psutil.Process(pid).create_time()
    return None


def newest(work: Path) -> int:
    """Number N of the newest lock in a folder; -1 if there is none."""
    with suppress(OSError):
        return max((int(n[5:]) for n in os.listdir(work) if n.startswith("lock.") and n[5:].isdigit()), default=-1)
    return -1


def owner(work: Path, n: int) -> dict[str, object]:
    """What lock.N says: host, pid, started; empty if it cannot be read."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads((work / f"lock.{n}").read_text(encoding="utf-8"))
        return found if isinstance(found, dict) and type(found.get("pid")) is int else {}
    return {}


def gone(work: Path, n: int) -> bool:
    """Whether the owner of lock.N ran on this machine and has ended."""
    found = owner(work, n)
    if found.get("host") != this_host():
        return False
    return started(found["pid"]) != found.get("started")


@dataclass
class Watch:
    """Signs of life of holders on other machines, as one process has seen them."""

    stale: float = STALE
    seen: dict[Path, tuple[int, int, float]] = field(default_factory=dict)  # folder -> N, time of the file, own clock

    def free(self, work: Path) -> int:
        """The lock that may be replaced: its N, -1 if there is none, -2 if its owner lives."""
        n = newest(work)
        if n < 0 or gone(work, n):
            return n
        try:
            beat = (work / f"lock.{n}").stat().st_mtime_ns
        except OSError:
            return -2  # released just now
        now = time.monotonic()
        if self.seen.get(work, ())[:2] != (n, beat):
            self.seen[work] = (n, beat, now)
        return n if now - self.seen[work][2] > self.stale else -2


@dataclass
class Lock:
    """A held lock."""

    work: Path
    n: int

    def beat(self) -> bool:
        """Give a sign of life; False: the lock was taken over or is gone."""
        with suppress(OSError):
            os.utime(self.work / f"lock.{self.n}")
            return newest(self.work) == self.n
        return False

    def release(self) -> None:
        """Remove this lock and those that it has replaced."""
        for n in range(self.n + 1):
            with suppress(OSError):
                (self.work / f"lock.{n}").unlink()


def acquire(work: Path, replaceable: int = -1) -> Lock | None:
    """Take the lock of a folder, which is made; None if another process holds it.

    Args:
        work: the cell's folder of unfinished work.
        replaceable: lock that :class:`Watch` has found without life.

    Raises:
        OSError: the folder cannot be written.
    """
    n = newest(work)
    if n >= 0 and n != replaceable and not gone(work, n):
        return None
    work.mkdir(parents=True, exist_ok=True)
    try:
        file = os.open(work / f"lock.{n + 1}", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except (FileExistsError, FileNotFoundError):  # another was faster, or has just removed the folder
        return None
    try:
        own = {"host": this_host(), "pid": os.getpid(), "started": started(os.getpid())}
        os.write(file, json.dumps(own).encode())
    except OSError:  # a full disk: without an owner it would hold others up
        (work / f"lock.{n + 1}").unlink(missing_ok=True)
        raise
    finally:
        os.close(file)
    return Lock(work, n + 1)


_held: set[Path] = set()  # folders whose lock a block of held() has in this process


def _replaceable(watch: Watch, folder: Path) -> int:
    """As :meth:`Watch.free`, but on this machine only for processes that have ended, however long one was stopped."""
    n = newest(folder)
    found = owner(folder, n)
    if found.get("host") != this_host():
        return watch.free(folder)
    left = found["pid"] == os.getpid() and folder not in _held  # by a block that was interrupted at its start or end
    return n if left or gone(folder, n) else -2


@contextmanager
def held(folder: Path, waits: str = "another process trains this model", every: float = 1.0) -> Iterator[None]:
    """Hold the lock of a folder inside the block; while another process holds it, wait and look every few seconds."""
    watch, lock, over = Watch(), None, threading.Event()

    def live() -> None:
        while not over.wait(BEAT) and lock.beat():
            pass

    try:
        with progress_bar(0, f"waiting: {waits}") as bar:
            while lock is None:
                free = _replaceable(watch, folder)
                try:
                    lock = acquire(folder, free) if free != -2 else None
                except OSError as error:
                    raise unwritable(folder, error) from None
                if lock is None:
                    bar.refresh()
                    time.sleep(every)
        _held.add(folder)
        threading.Thread(target=live, daemon=True).start()
        yield
    finally:
        _held.discard(folder)
        over.set()
        if lock is not None:
            lock.release()
