"""Tables of a result of gpu.py: python -m benchmarks.gpu_table benchmarks/results/nvidia-h200.json."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path


def lines(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; numbers are right-aligned, None is a dash."""
    align = ["---"] + ["---:"] * (len(head) - 1)
    cells = (["–" if x is None else str(x) for x in row] for row in [head, align, *rows])
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def number(x: object) -> str | None:
    return None if x is None else f"{x:.3g}"


def main_table(found: dict) -> str:
    """Rates, parity, recovery, training and projections."""
    rows = [(f"product of two 8192 x 8192 matrices, {kind}", f"{found['rates'][kind]:.0f} TFLOP/s")
            for kind in ("float32", "tf32", "bfloat16")]  # fmt: skip
    for preset, row in found["parity"].items():
        if isinstance(row, dict):
            name = f"predictions on CPU and GPU, preset {preset}: largest difference"
            rows.append((name, f"{row['difference']:.1e}"))
    r = found["recovery"]
    rows += [
        (f"recovery: {r['samples']} samples, {r['patterns']} patterns, {r['draws']} draws", f"{r['seconds']:.2f} s"),
        ("one draw of one pattern", f"{r['one_draw']:.3f} s"),
        ("the same on two cores of that machine", f"{r['one_draw_two_cores']:.2f} s"),
        ("evaluation: all patterns and rates, with fusion and metrics", f"{found['evaluation']['seconds']:.2f} s"),
    ]
    for stage, step in found["steps"].items():
        if isinstance(step, dict):
            took = f"{1e3 * step['seconds']:.0f} ms, {found['epochs'][stage]['epoch']:.2f} s"
            rows.append((f"training, stage {stage}: a step, an epoch", took))
    for name, row in found["projection"].items():
        if isinstance(row, dict):
            rows.append((f"whole table of {name}, {row['seeds']} seeds, projected", f"{row['hours']:.2f} h"))
    return lines(("what", "result"), rows)


def calls_table(found: dict) -> str:
    """Calls of the nets: ms by precision, and the relative error of the lower ones."""
    rows = [(f"{row['net']}, batch {row['batch']}", *(number(row["ms"][k]) for k in ("float32", "tf32", "bfloat16")),
             number(row.get("plain_ms")), *(f"{row['error'][k]:.0e}" for k in ("tf32", "bfloat16")))
            for row in found["calls"]["rows"]]  # fmt: skip
    head = ("ms of a call", "float32", "tf32", "bfloat16", "plain path", "error, tf32", "error, bfloat16")
    return lines(head, rows)


if __name__ == "__main__":
    result = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    print(main_table(result), calls_table(result), sep="\n\n")
