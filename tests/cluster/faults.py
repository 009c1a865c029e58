"""Kills processes of a sweep at random times, again and again, and checks what is left.

    python tests/cluster/faults.py                    # 30 kills, two local workers, cells that sleep .2 s
    python tests/cluster/faults.py --by-hand          # a scheduler and two workers started by hand
    python tests/cluster/faults.py --smoke --kills 6  # real cells of profile smoke

Victims: the sweep itself, workers, their cell servers, cells; by hand also the scheduler and the nannies. After each
kill, what has died is started again. At the end every cell must hold the numbers of an undisturbed sweep, no cell may
have been started or changed after it had finished, and nothing half-written may be found where results belong.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil

from imder_runs.attempt import BODY, CELLS, WORK, How
from imder_runs.cells import Cell
from imder_runs.engine import OneByOne, pool_of, run_cells
from imder_runs.grid import Grid, plan

HERE = Path(__file__).resolve().parent
FILES = {"metrics.json", "settings.json", "provenance.json"}  # of every finished cell


KINDS = ("sweep", "scheduler", "nanny", "worker", "server", "cell")


def cells_of(args: argparse.Namespace, log: str) -> list[Cell]:
    """Cells with a fusion stage; cheap ones write their starts to ``log``."""
    if args.smoke:
        return plan(Grid(profile="smoke", seeds=[1, 2], recoverers=["dropout", "kit"], rates=[0.3], epochs=1, steps=2))
    stage = Cell("stage", {"number": 1000, "sleep": args.sleep, "log": log})
    return [
        stage,
        *(Cell(f"c{i}", {"number": i, "sleep": args.sleep, "log": log}, stage.name) for i in range(args.cells)),
    ]


def sweep(folder: Path, cells: list[Cell], scheduler_file: str, smoke: bool, workers: int) -> None:
    """One sweep in this process, which will be killed."""
    how = How(str(folder), BODY if smoke else "cheap:body", threads=1)
    with pool_of(0 if scheduler_file else workers, scheduler_file=scheduler_file) as pool:
        run_cells(pool, cells, how, lambda result, left: print(result["name"], result["state"], result["error"], left))


class Machine:
    """The processes of a sweep on this machine; those that have ended are started again."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self.folder, self.args, self.processes = folder, args, {}
        self.file = folder.with_name("scheduler.json")
        self.log = folder.with_name("output.txt").open("a")

    def start(self) -> None:
        """Start what does not run."""
        dask = [sys.executable, "-m", "dask"]
        by_hand = {
            "scheduler": [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
                          "--scheduler-file", str(self.file)],
            **{f"nanny{i}": [*dask, "worker", "--scheduler-file", str(self.file), "--nthreads", "1", "--no-dashboard",
                             "--death-timeout", "60", "--local-directory", str(self.folder.parent)] for i in (0, 1)},
        }  # fmt: skip
        own = [sys.executable, __file__, "--sweep", str(self.folder), "--cells", str(self.args.cells)]
        own += [
            "--workers",
            str(self.args.workers),
            "--sleep",
            str(self.args.sleep),
            *(["--smoke"] if self.args.smoke else []),
        ]
        own += ["--file", str(self.file)] if self.args.by_hand else []
        for name, command in ((by_hand if self.args.by_hand else {}) | {"sweep": own}).items():
            if name not in self.processes or self.processes[name].poll() is not None:
                if name == "scheduler":
                    self.file.unlink(missing_ok=True)
                environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])}
                self.processes[name] = subprocess.Popen(
                    command, stdout=self.log, stderr=self.log, env=environment, start_new_session=True
                )

    def victims(self) -> dict[str, list[psutil.Process]]:
        """Living processes by kind."""
        found: dict[str, list[psutil.Process]] = {}
        for name, started in self.processes.items():
            if started.poll() is None:
                process = psutil.Process(started.pid)
                found.setdefault(name.rstrip("01"), []).append(process)
                for child in process.children(recursive=True):
                    with suppress(psutil.Error):
                        found.setdefault(_kind(child), []).append(child)
        return {k: v for k, v in found.items() if k != "other"}

    def family(self) -> set[psutil.Process]:
        return {p for group in self.victims().values() for p in group}

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.log.close()


def _kind(process: psutil.Process) -> str:
    line, parent = " ".join(process.cmdline()), " ".join(process.parent().cmdline())
    if "runs.cell_child" in line:
        return "cell" if "runs.cell_child" in parent else "server"
    return "worker" if "spawn_main" in line else "other"


def orphans(before: set[psutil.Process], machine: Machine, seconds: float = 30.0) -> int:
    """Processes whose family has been killed and that live longer than ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        left = [p for p in before - machine.family() if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        if not left:
            return 0
        time.sleep(0.2)
    print("orphans:", [(p.pid, p.cmdline()) for p in left])
    return len(left)


def disturbed(
    args: argparse.Namespace, root: Path, reference: dict[str, bytes], kills: int, rng: random.Random
) -> Counter:
    """One sweep with kills until it is finished; returns what was killed, "finished", and faults found."""
    folder, log, count = root / "sweep", root / "starts", Counter()
    cells, machine, seen = cells_of(args, str(log)), Machine(folder, args), {}
    try:
        while True:
            machine.start()
            if rng.random() < 0.7:  # else the kill may come while processes start
                before, end = len(list(folder.glob(f"{CELLS}/*"))), time.monotonic() + 60
                while time.monotonic() < end and machine.processes["sweep"].poll() is None:
                    if len(list(folder.glob(f"{CELLS}/*"))) > before:
                        break
                    time.sleep(0.05)
            killed = sum(count[k] for k in KINDS)
            end = time.monotonic() + (rng.uniform(0, args.within) if killed < kills else 600)
            while time.monotonic() < end and machine.processes["sweep"].poll() is None:
                time.sleep(0.05)
            count["wrong"] += len(wrong(folder, cells, reference, seen))
            done = len(seen)
            if done == len(cells):
                break
            if machine.processes["sweep"].poll() is not None:  # it gave up, because its scheduler is gone
                continue
            victims = machine.victims()
            kind = rng.choice(sorted(victims))
            victim, family = rng.choice(victims[kind]), machine.family()
            doomed = {victim, *victim.children(recursive=True)}
            with suppress(psutil.NoSuchProcess):
                victim.kill()
                count[kind] += 1
            count["orphans"] += orphans(doomed & family, machine)
            print(f"killed {kind}, {done}/{len(cells)} cells finished", flush=True)
            if kind == "scheduler":  # the sweep must notice by itself
                with suppress(subprocess.TimeoutExpired):
                    machine.processes["sweep"].wait(90)
    finally:
        machine.end()
    count["twice"] = twice(log, folder, cells)
    count["finished"] += 1
    return count


def wrong(folder: Path, cells: list[Cell], reference: dict[str, bytes], seen: dict[str, tuple]) -> list[str]:
    """Finished cells that are incomplete, differ from the undisturbed sweep or have changed since they were seen."""
    found, label = [], {c.name: c.label for c in cells}
    for path in folder.glob(f"{CELLS}/*"):
        stat = (path / "metrics.json").stat()
        mark = (stat.st_ino, stat.st_mtime_ns)
        complete = {p.name for p in path.iterdir()} >= FILES and not list(path.rglob(".*.part"))
        same = (path / "metrics.json").read_bytes() == reference[label[path.name]]
        json.loads((path / "settings.json").read_text())
        if not (complete and same and seen.setdefault(path.name, mark) == mark):
            found.append(path.name)
    return found


def twice(log: Path, folder: Path, cells: list[Cell]) -> int:
    """Cells that were started after they had finished; prints how often cells were started."""
    if not log.exists():
        return 0
    starts = [line.split() for line in log.read_text().splitlines()]
    ended = {c.settings["number"]: (folder / CELLS / c.name / "metrics.json").stat().st_mtime for c in cells}
    late = [number for number, begun in starts if float(begun) > ended[int(number)]]
    print(f"{len(starts)} starts of {len(ended)} cells")
    return len(late)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--sleep", type=float, default=0.2)
    parser.add_argument("--within", type=float, default=6.0, help="seconds until the next kill, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="0: one cell after the other")
    parser.add_argument("--by-hand", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--sweep", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--file", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.sweep:
        sweep(args.sweep, cells_of(args, str(args.sweep.with_name("starts"))), args.file, args.smoke, args.workers)
        return
    rng, total, begun = random.Random(args.seed), Counter(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cells = cells_of(args, str(root / "quiet"))
        run_cells(OneByOne(), cells, How(str(root / "calm"), BODY if args.smoke else "cheap:body", child=args.smoke,
                                         threads=1), lambda *_: None)  # fmt: skip
        reference = {c.label: (root / "calm" / CELLS / c.name / "metrics.json").read_bytes() for c in cells}
        while (left := args.kills - sum(total[k] for k in KINDS)) > 0:
            own = root / str(total["finished"])
            own.mkdir()
            total += disturbed(args, own, reference, left, rng)
            left_over = list((own / "sweep" / WORK).iterdir())
            total["left over"] += len(left_over)
    print(f"{dict(total)} in {time.monotonic() - begun:.0f} s")
    sys.exit(any(total[k] for k in ("wrong", "twice", "orphans")))


if __name__ == "__main__":
    main()
