"""What the kit costs, as ratios within one run: python -m benchmarks.bench, or make bench.

Prints a table and writes OUT/bench.json, again after each row. Each row is the median of 5 rounds (3 if 5 would take
over half a minute); in a round a matrix product, the kit and what it is compared with take turns. ``cost``: time / time
of the product of two 1024 x 1024 float32 matrices. ``ratio``: time of the comparison / time of the kit; before anything
is timed, two nets with the same weights must give equal outputs within 1e-4. ``share``: achieved FLOP/s / FLOP/s of
that product. ``peak MB``: memory of one call, in addition to what was held before it.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch

from benchmarks.bench_rows import QUICK, ROWS, Sizes
from benchmarks.measure import PRODUCT, count_flops, matrix_product, measure, seconds, settings, table
from benchmarks.scaling import axes, figure, scaling
from benchmarks.threads import neighbours
from imder_lib.errors import unknown
from imder_lib.files import write_text

RUNS = ("smoke", "quick")  # whole runs; quick only with --full


def run_child(command: Sequence[str]) -> tuple[float, float]:
    """Run a process: its seconds, and the memory in MB of the largest process that this one has waited for.

    Raises:
        RuntimeError: it failed; the message is the end of its error output.
    """
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr[-300:]}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return time.perf_counter() - began, used / (1e6 if sys.platform == "darwin" else 1e3)


def whole_run(profile: str, product: float) -> dict[str, object]:
    """The row of a whole `imder reproduce`, measured once, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "imder_runs.cli", "reproduce", "--profile", profile, "--dataset", "synthetic"]
        took, peak = run_child([sys.executable, *command, "--out", f"{folder}/{profile}"])
    return {"row": f"whole {profile}", "seconds": took, "cost": took / product, "peak_mb": peak, "rounds": 1}


def measured(chosen: Iterable[str], quick: bool) -> Iterator[dict[str, object]]:
    """Rows of :data:`ROWS`, of scaling and of whole runs; a row that fails has its error, and the others go on."""
    product = matrix_product(PRODUCT)
    count_flops(product)  # what counting sets up is no memory of the first row
    for name in chosen:
        try:
            if name in RUNS:
                yield whole_run(name, sorted(seconds(product) for _ in range(9))[4])
            elif name == "scaling":
                yield from scaling(axes(quick), 1 if quick else 3)
            else:
                for case in ROWS[name](QUICK if quick else Sizes()):
                    row = measure(case, product, 2.0 * PRODUCT**3, int(quick))
                    print(f"{case.name}, batch {case.batch}: {row['seconds']:.3g} s", file=sys.stderr, flush=True)
                    yield row
        except Exception as error:
            yield {"row": name, "error": f"{type(error).__name__}: {error}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    known = [*ROWS, "scaling", *RUNS]
    parser.add_argument("--rows", default="", help=f"some of {','.join(known)}; all but quick if empty")
    parser.add_argument("--quick", action="store_true", help="small sizes, to check that the rows run; no whole runs")
    parser.add_argument("--full", action="store_true", help="also the whole run of profile quick")
    parser.add_argument("--busy", action="store_true", help="one neighbour process keeps a core busy")
    parser.add_argument("--threads", type=int, default=0, help="0: as the environment says")
    parser.add_argument("--figure", default="", help="draw how the cost grows to this file")
    parser.add_argument("--out", default="results/bench")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
        os.environ["OMP_NUM_THREADS"] = str(args.threads)  # of whole runs
    runs = ["smoke"] * (not args.quick) + ["quick"] * args.full
    chosen = args.rows.split(",") if args.rows else [*ROWS, "scaling", *runs]
    if bad := [k for k in chosen if k not in known]:
        parser.error(str(unknown("unknown row", bad[0], known)))
    began, ran = time.perf_counter(), settings() | {"neighbours": int(args.busy), "quick": args.quick}
    rows, growth = [], []
    found = {"settings": ran, "rows": rows, "scaling": growth}
    with neighbours(int(args.busy)):
        for row in measured(chosen, args.quick):
            (growth if "axis" in row else rows).append(row)
            write_text(Path(args.out) / "bench.json", json.dumps(found, indent=1) + "\n")
    ran["seconds"] = time.perf_counter() - began
    ran["gflops_of_product"] = sorted(2e-9 * PRODUCT**3 / seconds(matrix_product(PRODUCT)) for _ in range(9))[4]
    write_text(Path(args.out) / "bench.json", json.dumps(found, indent=1) + "\n")
    print(table(rows))
    for g in growth:
        print(f"{g['axis']} {g['sizes']}: slope of time {g['slope']:.2f}, of memory {g['memory_slope']:.2f}")
    for name, note in {r["row"]: r["note"] for r in rows if r.get("note")}.items():
        print(f"{name}: ratio to {note}")
    print(", ".join(f"{k} {v}" for k, v in ran.items()))
    if args.figure and growth:
        figure(growth, Path(args.figure))
    if any("error" in r for r in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
