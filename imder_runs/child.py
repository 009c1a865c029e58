"""The process that executes one notebook. It ends with its parent, and what it has started ends with it."""

import json
import os
import sys
import threading
import time
from contextlib import suppress

import psutil

MARK = "IMDER_RUN"  # an environment variable, which everything that a notebook starts inherits


def end_all(pid: int, mark: str) -> None:
    """Kill a process, its descendants and every process with the mark; the caller itself is spared."""
    for _ in range(3):  # what is started meanwhile is found in the next round
        found = {p for p in psutil.process_iter() if _marked(p, mark)}
        with suppress(psutil.Error):
            found |= {psutil.Process(pid), *psutil.Process(pid).children(recursive=True)}
        for process in found:
            with suppress(psutil.Error):
                if process.pid != os.getpid():
                    process.kill()
        time.sleep(0.05)


def _marked(process: psutil.Process, mark: str) -> bool:
    with suppress(psutil.Error, OSError):
        return process.environ().get(MARK) == mark
    return False


def _watch(parent: int) -> None:
    """Even if the parent is killed, a resumed run does not find the old one still writing."""
    while os.getppid() == parent:
        time.sleep(0.5)
    end_all(os.getpid(), os.environ[MARK])
    os._exit(1)


def main() -> None:
    job = json.load(sys.stdin)
    threading.Thread(target=_watch, args=[job["parent"]], daemon=True).start()
    # jsonschema would use it to check addresses, and building its grammar takes seconds; nothing here
    # checks the format of addresses.
    sys.modules["rfc3987_syntax"] = None
    import papermill  # slow: the parent is watched first

    papermill.execute_notebook(
        job["notebook"], job["out"], parameters=job["parameters"], kernel_name="python3", progress_bar=False,
        cwd=job["cwd"], log_output=False,
    )  # fmt: skip


if __name__ == "__main__":
    main()
