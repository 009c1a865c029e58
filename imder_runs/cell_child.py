"""A cell in a process of its own: its memory returns, and it ends with the worker that asked for it.

A worker keeps one :class:`Server`, a process that has imported the library. It forks a process for each cell, so that
a cell does not pay for the imports. Where forking is not safe (not Linux), the server itself runs one cell and ends.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

FORKS = sys.platform == "linux"
LONGEST = 1000  # characters of a message: it is read after the cell has ended, so it must fit into a pipe


class Server:
    """The worker's end of a server.

    Args:
        forks: one process for each cell; False: one server for each cell.
    """

    def __init__(self, forks: bool = FORKS) -> None:
        path = os.pathsep.join(p for p in sys.path if p)
        command = [sys.executable, "-P", "-m", "imder_runs.cell_child", str(os.getpid()), "fork" if forks else "once"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C reaches the parent alone, which ends this process
        )  # fmt: skip
        self.forks = forks

    def run(self, job: dict[str, Any], alive: Callable[[], bool], every: float) -> str:
        """Run a cell; return "" or the first line of its error.

        Args:
            job: body ("module:function"), settings, folder, stage (folder or ""), cores (numbers), threads, memory
                (bytes; 0: no limit).
            alive: called every ``every`` seconds; False ends the cell.
        """
        try:
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
            self.process.stdin.flush()
            while not select.select([self.process.stdout], [], [], every)[0]:
                if not alive():
                    self.close()
                    return "another process has taken this cell over"
            line = self.process.stdout.readline()
        except OSError:
            line = b""
        except BaseException:
            self.close()
            raise
        if not line:
            code = self.process.wait()
            return f"its process ended with code {code}"
        return json.loads(line)

    @property
    def usable(self) -> bool:
        return self.forks and self.process.poll() is None

    def close(self) -> None:
        """Kill the server; a cell that it runs ends at once."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def _parent_is(pid: int) -> bool:
    return os.getppid() == pid


def _end_with(parent: int) -> None:
    """End this process when its parent has ended."""
    while _parent_is(parent):
        time.sleep(0.2)
    os._exit(1)


def _cell(job: dict[str, Any], out: int, parent: int) -> None:
    """Run one cell in this process, which ends; its error goes to ``out`` as a line, all other output to log.txt."""
    threading.Thread(target=_end_with, args=[parent], daemon=True).start()
    folder = Path(job["folder"])
    message = ""
    try:
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(log, stream)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, job["cores"])
        if job["threads"]:
            import torch

            torch.set_num_threads(job["threads"])
        module, _, name = job["body"].partition(":")
        body = getattr(importlib.import_module(module), name)
        body(job["settings"], folder, Path(job["stage"]) if job["stage"] else None)
    except BaseException as error:
        kind = "" if type(error).__name__ in ("UserError", "RuntimeError") else f"{type(error).__name__}: "
        message = (kind + str(error).strip()).split("\n")[0] or "an error without a message"
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os.write(out, json.dumps(message[:LONGEST]).encode() + b"\n")
    os._exit(0)


def _forked(job: dict[str, Any], parent: int) -> str:
    """Run one cell in a fork; watch its memory, and the parent of this server."""
    read, write = os.pipe()
    own = os.getpid()
    pid = os.fork()
    if pid == 0:
        _cell(job, write, own)
    os.close(write)
    wait, over = 0.002, 0
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        with contextlib.suppress(psutil.Error):
            if job["memory"] and wait > 0.1 and psutil.Process(pid).memory_info().rss > job["memory"]:
                over = job["memory"]
        if over or not _parent_is(parent):
            os.kill(pid, signal.SIGKILL)
        if not _parent_is(parent):
            os._exit(1)
        time.sleep(wait)
        wait = min(0.2, wait * 1.3)
    with os.fdopen(read, "rb") as file:
        line = file.readline()
    if over:
        return f"it needed more than {over / 1e9:.1f} GB of memory: raise --memory, or use fewer workers"
    return json.loads(line) if line else "its process was killed, perhaps because memory ran out"


def main() -> None:
    """Run the cells that come as lines on standard input; one line on standard output answers each."""
    parent = int(sys.argv[1])
    import imder_runs.cells  # noqa: F401  slow: done once for all cells

    out = os.dup(1)
    os.dup2(2, 1)
    for line in sys.stdin:
        if sys.argv[2] == "once":
            _cell(json.loads(line), out, parent)
        os.write(out, json.dumps(_forked(json.loads(line), parent)).encode() + b"\n")


if __name__ == "__main__":
    main()
