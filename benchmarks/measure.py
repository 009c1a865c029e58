"""Measurement shared by bench.py and gpu.py: alternating timings, FLOPs, peak memory, settings. Needs only PyTorch."""

import ctypes
import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.utils import flop_counter

Call = Callable[[], object]
ROUNDS, FEWEST = 5, 3  # rounds of a row, and of a row that would take longer than LIMIT seconds
LIMIT = 30.0
LEAST = 0.1  # seconds: shorter calls are repeated within a round
PRODUCT = 1024  # the matrix product that is the unit of cost on a CPU is of this size


@dataclass
class Case:
    """One measured call.

    Attributes:
        name, batch: head of the row.
        kit: the measured call.
        plain: what it is compared with: pairs (weight, call), whose weighted times are added. Empty: nothing.
        note: what the comparison is, and what was scaled.
        outputs: two calls that must give equal tensors before anything is timed.
    """

    name: str
    batch: int
    kit: Call
    plain: Sequence[tuple[float, Call]] = ()
    note: str = ""
    outputs: tuple[Callable[[], Tensor], Callable[[], Tensor]] | None = None


def synchronise() -> None:
    """Wait for the accelerator, if there is one: its work is asynchronous."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


def seconds(call: Call, times: int = 1) -> float:
    """Seconds of a call, the mean of ``times`` in a row."""
    synchronise()
    began = time.perf_counter()
    for _ in range(times):
        call()
    synchronise()
    return (time.perf_counter() - began) / times


def alternate(calls: Sequence[Call], rounds: int = 0, limit: float = LIMIT) -> list[list[float]]:
    """Seconds of each call in each round; the calls take turns, so a change of the machine's speed meets all of them.

    Args:
        calls: each is called once or twice before the first round.
        rounds: 0: ROUNDS, but FEWEST if all rounds would take longer than ``limit`` seconds.
    """
    repeats, whole = [], 0.0
    for call in calls:
        once = seconds(call)
        once = once if once > 1 else seconds(call)  # the first call may compile or allocate
        repeats.append(max(1, math.ceil(LEAST / max(once, 1e-9))))
        whole += once * repeats[-1]
    rounds = rounds or (ROUNDS if whole * ROUNDS <= limit else FEWEST)
    found = [[seconds(call, n) for call, n in zip(calls, repeats, strict=True)] for _ in range(rounds)]
    return [list(times) for times in zip(*found, strict=True)]


def measure(case: Case, product: Call, work: float, rounds: int = 0) -> dict[str, object]:
    """One row: time, cost, ratio, share of the matrix rate and peak memory of a case.

    Args:
        product: a matrix product, timed in each round.
        work: its FLOPs.

    Returns:
        seconds (median), cost (in matrix products), ratio (time of the plain path / time of the kit), gflop, share (of
        the rate of ``product``), peak_mb (in addition to what was held before the call), rounds, difference (largest,
        of the compared outputs); None where there is none. ratio, cost and share are medians over rounds.
    """
    difference = None if case.outputs is None else largest_difference(*(f() for f in case.outputs))
    flops, peak = weigh(case.kit)
    unit, kit, *plain = alternate([product, case.kit, *(call for _, call in case.plain)], rounds)
    weights = [weight for weight, _ in case.plain]
    whole = [sum(w * t for w, t in zip(weights, times, strict=True)) for times in zip(*plain, strict=True)]
    pairs = list(zip(unit, kit, strict=True))
    return {
        "row": case.name,
        "batch": case.batch,
        "seconds": median(kit),
        "cost": median(k / u for u, k in pairs),
        "ratio": median(p / k for p, k in zip(whole, kit, strict=True)) if whole else None,
        "gflop": flops / 1e9,
        "share": median(flops / k / (work / u) for u, k in pairs) if flops else None,
        "peak_mb": peak,
        "rounds": len(kit),
        "difference": difference,
        "note": case.note,
    }


def largest_difference(a: Tensor, b: Tensor, limit: float = 1e-4) -> float:
    """Largest difference of two results; a ValueError if it is above ``limit`` times the larger scale (at least 1)."""
    difference = float((a.float() - b.to(a.device).float()).abs().max())
    if not difference <= limit * max(1.0, float(a.abs().max())):
        raise ValueError(f"the two paths differ by {difference:.2g}, expected at most {limit:g}: nothing was timed")
    return difference


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *args: object, **kw: object) -> int:
    """FLOPs of attention from shapes (B, H, T, D): two batched products."""
    (B, H, T, D), S = query, key[2]
    return 2 * B * H * T * S * (D + value[3])


def _attention_backward(grad: Sequence[int], *shapes: Sequence[int], **kw: object) -> int:
    """FLOPs of the gradients: two products for each one of the forward pass, and the scores again."""
    (B, H, T, D), S = shapes[0], shapes[1][2]
    return 2 * _attention(*shapes[:3]) + 2 * B * H * T * S * D


def _attention_formulas() -> dict[object, Callable]:
    """FLOP formulas of the CPU's attention kernels, which PyTorch's counter does not know."""
    name = "_scaled_dot_product_flash_attention_for_cpu"
    own = {name: _attention, f"{name}_backward": _attention_backward}
    ops = {getattr(torch.ops.aten, k, None): formula for k, formula in own.items()}
    return {op: f for op, f in ops.items() if op is not None and op not in flop_counter.flop_registry}


def count_flops(call: Call) -> int:
    """Floating-point operations of one call: matrix products, convolutions and attention (all key steps)."""
    with flop_counter.FlopCounterMode(display=False, custom_mapping=_attention_formulas()) as counter:
        call()
    return counter.get_total_flops()


def peak_memory(call: Call, device: torch.device | str) -> float | None:
    """Largest memory of one call in MB, in addition to what was held before; None where it cannot be measured.

    If the call has been made before, what it keeps is held already.

    Args:
        device: where the call computes.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # give freed memory back, or it hides the growth
    try:
        Path("/proc/self/clear_refs").write_text("5")  # reset the high-water mark
        before = _status("VmRSS")
        call()
        return (_status("VmHWM") - before) / 1e3
    except OSError:  # not Linux
        return None


def weigh(call: Call) -> tuple[int, float | None]:
    """FLOPs and memory of a call on the CPU, which is made once if it is long, otherwise again without first costs."""
    counted, began = [], time.perf_counter()
    peak = peak_memory(lambda: counted.append(count_flops(call)), "cpu")
    return counted[0], peak if time.perf_counter() - began > 2 else peak_memory(call, "cpu")


def _status(key: str) -> int:
    """A line of /proc/self/status in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def matrix_product(size: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Call:
    """A product of two square matrices of random numbers: 2 size^3 FLOPs."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return lambda: a @ b


def settings(device: torch.device | str = "cpu") -> dict[str, object]:
    """What ran: versions, device, threads, precision."""
    on_cuda = torch.device(device).type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if on_cuda else "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda if on_cuda else None,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "onednn": torch.backends.mkldnn.is_available(),
        **{k: os.environ.get(k) for k in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")},
        "load": [round(x, 2) for x in os.getloadavg()],  # other work on the machine, before the run
    }


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of a least-squares line through (log size, log value): 1 is linear, 0 is constant."""
    x, y = ([math.log(v) for v in column] for column in (sizes, values))
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows of :func:`measure` as a Markdown table."""
    head = ("row", "batch", "ms", "cost", "ratio", "share", "peak MB", "rounds")
    lines = [head, ("---", *["---:"] * (len(head) - 1))]
    for r in rows:
        if r.get("error"):
            lines.append((r["row"], "", *["–"] * (len(head) - 3), f"failed: {r['error']}"))
            continue
        number = lambda key, form, r=r: "–" if r.get(key) is None else format(r[key], form)  # noqa: E731
        share = "–" if r.get("share") is None else f"{100 * r['share']:.0f} %"
        lines.append((r["row"], number("batch", "d"), f"{1e3 * r['seconds']:.3g}", number("cost", ".3g"),
                      number("ratio", ".2f"), share, number("peak_mb", ".3g"), number("rounds", "d")))  # fmt: skip
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
