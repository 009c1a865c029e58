"""Training time under OpenMP wait policies on a busy machine: python benchmarks/threads.py --neighbours 0,2.

Times training steps of the kit's joint net under each of SETTINGS, each in its own process, while other
processes run a busy loop. The timed processes take turns. "seconds" is the median time of a step over --rounds turns,
"ratio" the median ratio to the default in the same turn. Needs a Linux wheel of PyTorch: only libgomp reads
GOMP_SPINCOUNT.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

SETTINGS = {  # name -> environment variables set before PyTorch is imported
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "spin 100000": {"GOMP_SPINCOUNT": "100000"},
}
# PyTorch is imported first, so the kit sets no policy. A turn is some steps; its answer is the seconds per step.
STEPS = """
import time, torch
from imder_lib.nets.joint_net import JointNet
net = JointNet(3, 32)
optimiser = torch.optim.Adam(net.parameters())
x, level, available = torch.randn(32, 3, 32, 48), torch.randn(32), torch.rand(32, 3) < 0.5
def step():
    optimiser.zero_grad()
    net(x, level, x, available).square().mean().backward()
    optimiser.step()
step()
print("ready", flush=True)
while line := input():
    began, n = time.perf_counter(), 0
    while not n or time.perf_counter() - began < float(line):
        step()
        n += 1
    print((time.perf_counter() - began) / n, flush=True)
"""
LOOP = """
import os
parent = os.getppid()
while os.getppid() == parent:  # ends with the benchmark, even if that is killed
    pass
"""


def start(setting: dict[str, str], threads: int) -> subprocess.Popen:
    """Start a process that waits for turns."""
    known = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {k: v for k, v in os.environ.items() if k not in known} | setting
    environment["OMP_NUM_THREADS"] = str(threads)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", STEPS], env=environment, **pipes)
    process.stdout.readline()  # ready
    return process


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Processes that keep a core busy while the block runs."""
    busy = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def turn(process: subprocess.Popen, seconds: float) -> float:
    """Seconds per training step in a turn of at least ``seconds``."""
    print(seconds, file=process.stdin, flush=True)
    return float(process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--neighbours", default="0,2", help="numbers of busy processes, one table row each")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="minimum length of a turn")
    args = parser.parse_args()
    processes = {name: start(setting, args.threads) for name, setting in SETTINGS.items()}
    print(f"{'busy':>4}  {'setting':12} {'seconds':>8} {'least':>8} {'most':>8} {'ratio':>7}")
    try:
        for count in map(int, args.neighbours.split(",")):
            with neighbours(count):
                turns = [{name: turn(p, args.seconds) for name, p in processes.items()} for _ in range(args.rounds)]
            for name in SETTINGS:
                seconds, ratio = [t[name] for t in turns], median(t[name] / t["default"] for t in turns)
                low, high = min(seconds), max(seconds)
                print(f"{count:4}  {name:12} {median(seconds):8.4f} {low:8.4f} {high:8.4f} {ratio:7.3f}", flush=True)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
