"""What the engine of sweeps costs, with a real grid whose cells do nothing.

Prints the seconds of planning, the cells a second, and the seconds of imder status and of the results.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import Any

from imder_runs.attempt import How
from imder_runs.engine import pool_of, run_cells
from imder_runs.grid import Grid, plan
from imder_runs.outcome import status, write_plan, write_results

NUMBERS = ("rate", "realised", "n", "draws", "acc2", "f1", "acc2_has0", "f1_has0", "acc5", "acc7", "mae", "corr",
           "cover50", "cover80", "cover95")  # fmt: skip
METHODS = ("imder", "zero", "mean", "constant", "bayes")


def nothing(settings: Mapping[str, Any], folder: Path, stage: Path | None) -> None:
    """The body of a cell that does nothing."""
    (folder / "metrics.json").write_text("[]")


def rows(settings: Mapping[str, Any], folder: Path, stage: Path | None) -> None:
    """The body of a cell that writes as many rows as a real one, and does nothing else."""
    head = {k: settings[k] for k in ("seed", "recipe", "recoverer", "varied") if k in settings}
    table = [head | {"dataset": "synthetic", "protocol": p, "case": str(c), "method": m} | dict.fromkeys(NUMBERS, 1 / 3)
             for p, c in settings.get("cases", ()) for m in METHODS]  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(table, indent=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1000, help="a fusion stage and three models for each seed")
    parser.add_argument("--plan", action="store_true", help="plan, and run nothing")
    parser.add_argument("--workers", type=int, default=0, help="0: one cell after the other")
    parser.add_argument("--rows", action="store_true", help="each cell writes as many rows as a real one")
    parser.add_argument("--child", action="store_true", help="each cell in a process of its own, as in a sweep")
    parser.add_argument("--folder", type=Path, help="where to work; the system's folder for temporary files")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    grid = Grid(profile="smoke", seeds=list(range(args.cells // 4)), recoverers=["kit", "network", "dropout"])
    try:
        begun = time.perf_counter()
        cells = plan(grid)
        write_plan(folder, cells)
        print(f"{len(cells)} cells planned and written: {time.perf_counter() - begun:.1f} s")
        begun = time.perf_counter()
        status(folder)
        print(f"imder status: {time.perf_counter() - begun:.2f} s")
        if args.plan:
            return
        begun = time.perf_counter()
        with pool_of(args.workers) as pool:
            print(f"workers ready after {time.perf_counter() - begun:.1f} s")
            begun = time.perf_counter()
            how = How(str(folder), body="engine:rows" if args.rows else "engine:nothing", child=args.child, threads=1)
            results = run_cells(pool, cells, how, lambda *_: None)
            seconds = time.perf_counter() - begun
        states = dict(Counter(r["state"] for r in results.values()))
        print(f"{len(cells)} cells, {states}: {seconds:.1f} s, {len(cells) / seconds:.0f} a second")
        for what in (status, lambda f: write_results(f, cells)):
            begun = time.perf_counter()
            what(folder)
            print(f"{'imder status' if what is status else 'results'}: {time.perf_counter() - begun:.2f} s")
        print(f"largest memory of this process: {getrusage(RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
