"""Tables of a result of gpu.py: python -m benchmarks.gpu_table benchmarks/results/nvidia-h200.json.

Rows that failed, or that the result lacks, are left out.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

PRECISIONS = ("float32", "tf32", "bfloat16")


def lines(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; numbers are right-aligned, None is a dash."""
    align = ["---"] + ["---:"] * (len(head) - 1)
    cells = (["–" if x is None else str(x) for x in row] for row in [head, align, *rows])
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def number(x: object) -> str | None:
    return None if x is None else f"{x:.3g}"


def tables(found: dict) -> Iterator[str]:
    """What was measured, calls of the nets by precision, and the gain of CUDA graphs."""
    found = {k: v for k, v in found.items() if "error" not in v}
    yield lines(("what", "result"), main_rows(found))
    if "calls" in found:
        head = ("ms of a call", *PRECISIONS, "plain path", "error, tf32", "error, bfloat16")
        rows = [(f"{row['net']}, batch {row['batch']}", *(number(row["ms"][k]) for k in PRECISIONS),
                 number(row.get("plain_ms")), *(f"{row['error'][k]:.0e}" for k in PRECISIONS[1:]))
                for row in found["calls"]["rows"]]  # fmt: skip
        yield lines(head, rows)
    graphs = found.get("graphs", {})
    if "rows" in graphs:
        head = ("ms", "call", "as a graph", "training pass", "as a graph", "difference")
        keys = ("eager_ms", "graph_ms", "training_eager_ms", "training_graph_ms", "difference")
        yield lines(
            head, [(f"{r['net']}, batch {r['batch']}", *(number(r.get(k)) for k in keys)) for r in graphs["rows"]]
        )
    elif graphs:  # of the first version, forward calls only
        rows = [(name.replace(" ", ", batch "), number(row["eager_ms"]), number(row["ms"]))
                for name, row in graphs.items() if isinstance(row, dict)]  # fmt: skip
        yield lines(("ms of a call", "launched", "as a CUDA graph"), rows)


def main_rows(found: dict) -> Iterator[tuple[str, str]]:
    """Rates, parity, recovery, training and projections."""
    size = 512 if found["settings"]["quick"] else 8192
    for kind in PRECISIONS if "rates" in found else ():
        yield f"product of two {size} x {size} matrices, {kind}", f"{found['rates'][kind]:.0f} TFLOP/s"
    for preset, row in found.get("parity", {}).items():
        if isinstance(row, dict):
            yield f"predictions on CPU and GPU, preset {preset}: largest difference", f"{row['difference']:.1e}"
    if r := found.get("recovery"):
        yield f"recovery: {r['samples']} samples, {r['patterns']} patterns, {r['draws']} draws", f"{r['seconds']:.2f} s"
        yield "one draw of one pattern", f"{r['one_draw']:.3f} s"
        yield "the same on two cores of that machine, from 128 samples", f"{r['one_draw_two_cores']:.2f} s"
    if r := found.get("evaluation"):
        yield "evaluation: all patterns and rates, with fusion and metrics", f"{r['seconds']:.2f} s"
    for stage, step in found.get("steps", {}).items():
        if isinstance(step, dict):
            yield f"training, stage {stage}: a step", f"{1e3 * step['seconds']:.0f} ms"
    for stage, row in found.get("epochs", {}).items():
        if isinstance(row, dict):
            yield f"training, stage {stage}: an epoch", f"{row['epoch']:.2f} s"
    for name, row in found.get("projection", {}).items():
        if isinstance(row, dict):
            yield f"table of {name}, the kit alone, {row['seeds']} seeds, projected", f"{row['hours']:.2f} h"


if __name__ == "__main__":
    result = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(*tables(result), sep="\n\n")
