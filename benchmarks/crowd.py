"""What a scheduler and a sweep cost with many workers: all of them in one process, with cells that do nothing.

The workers share one process and this machine's cores, so the cells a second say nothing of a cluster. The processor
time of the scheduler and of the sweep does: neither knows where the workers are.
"""

import argparse
import asyncio
import json
import logging
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dask
import psutil
from distributed import Worker

from imder_runs.attempt import How
from imder_runs.engine import pool_of, run_cells
from imder_runs.grid import Grid, plan

# What a worker does by itself; here a thousand of them share one interpreter.
QUIET = {"distributed.worker.profile.enabled": False, "distributed.admin.system-monitor.interval": "60s",
         "distributed.admin.tick.interval": "1s"}  # fmt: skip
IDLE = 15.0  # seconds


async def crowd(address: str, workers: int, folder: str) -> None:
    """Start workers in this process, and say so."""
    kw = {"nthreads": 1, "memory_limit": 0, "dashboard": False, "host": "127.0.0.1", "local_directory": folder}
    started = [await Worker(address, name=i, heartbeat_interval=5, **kw) for i in range(workers)]
    print("ready", flush=True)
    await asyncio.gather(*(w.finished() for w in started))


def measure(args: argparse.Namespace, folder: Path) -> None:
    """Start a scheduler and the crowd, run the cells, and print processor times."""
    file = folder / "scheduler.json"
    own = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(file)]
    scheduler = subprocess.Popen([sys.executable, "-m", "dask", "scheduler", *own], stderr=subprocess.DEVNULL)
    while not file.exists():
        time.sleep(0.2)
    time.sleep(0.5)
    address = json.loads(file.read_text())["address"]
    command = [sys.executable, __file__, "--workers", str(args.workers), "--join", address, "--folder", str(folder)]
    workers = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    processes = {"sweep": psutil.Process(), "scheduler": psutil.Process(scheduler.pid)}

    def used() -> dict[str, float]:
        return {k: sum(p.cpu_times()[:2]) for k, p in processes.items()}

    try:
        if workers.stdout.readline().strip() != "ready":
            raise RuntimeError("the workers did not start: is the limit of open files (ulimit -n) above 20 a worker?")
        cells = plan(
            Grid(profile="smoke", seeds=list(range(args.cells // 4)), recoverers=["kit", "network", "dropout"])
        )
        with pool_of(scheduler=address) as pool:
            before = used()
            time.sleep(IDLE)
            print({k: f"{100 * (v - before[k]) / IDLE:.0f} % of a core while idle" for k, v in used().items()})
            before = used()
            how = How(str(folder / "out"), body="engine:nothing", child=False, threads=1)
            results = run_cells(pool, cells, how, lambda *_: None)
            print({k: f"{1000 * (v - before[k]) / len(cells):.2f} ms a cell" for k, v in used().items()})
        assert {r["state"] for r in results.values()} == {"done"}
    finally:
        for process in (workers, scheduler):
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--cells", type=int, default=4000)
    parser.add_argument("--join", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.join:
        dask.config.set(QUIET)
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        asyncio.run(crowd(args.join, args.workers, args.folder))
    else:
        with tempfile.TemporaryDirectory() as folder:
            measure(args, Path(folder))


if __name__ == "__main__":
    main()
