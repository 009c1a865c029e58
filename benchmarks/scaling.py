"""How time and memory of predictions grow with T, N, M, draws and sampler steps: slopes on log axes, and a figure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.measure import peak_memory, seconds, slope
from imder_lib import IMDer, model_preset
from imder_lib.experiment.prediction import predict
from imder_runs.profiles import find_profile

BASE = {"T": 48, "N": 64, "M": 3, "draws": 1, "steps": 10}
NAMES = {"T": "time steps T", "N": "samples N", "M": "modalities M", "draws": "draws K", "steps": "sampler steps"}
BATCH = 64


def axes(quick: bool) -> dict[str, tuple[int, ...]]:
    """Sizes of each axis; the others stay at BASE."""
    if quick:
        return {"N": (16, 64), "draws": (1, 2)}
    return {"T": (12, 24, 48, 96, 192), "N": (64, 256, 1024), "M": (2, 3, 4, 6), "draws": (1, 2, 4, 8),
            "steps": (5, 10, 20, 40)}  # fmt: skip


def prediction(T: int, N: int, M: int, draws: int, steps: int) -> Callable[[], object]:
    """Predictions of N samples with one modality available: recovery and fusion, profile quick's sizes."""
    widths = {f"m{i}": 32 for i in range(M)}
    config = model_preset("mosi", widths, sampler={"steps": steps}, **find_profile("quick").model)
    model = IMDer(config, seed=0).eval()
    latents = {m: torch.randn(N, config.dim, T) for m in widths}
    available = np.zeros((N, M), bool)
    available[:, 0] = True
    ids = [f"sample {i}" for i in range(N)]
    return lambda: predict(model, model.recoverer, latents, ids, available, 1, draws, batch_size=BATCH)


def scaling(chosen: Mapping[str, Sequence[int]], rounds: int) -> Iterator[dict[str, object]]:
    """Seconds (median over rounds, in which the sizes take turns) and peak memory in MB along each axis."""
    for axis, sizes in chosen.items():
        calls = [prediction(**BASE | {axis: size}) for size in sizes]
        calls[0]()  # what the first call sets up
        memory = [peak_memory(call, "cpu") for call in calls]
        times = [[seconds(call) for call in calls] for _ in range(rounds)]
        took = [median(column) for column in zip(*times, strict=True)]
        kept = [m if m is not None else float("nan") for m in memory]
        yield {"axis": axis, "sizes": list(sizes), "seconds": took, "slope": slope(sizes, took),
               "memory_mb": memory, "memory_slope": slope(sizes, [max(m, 1.0) for m in kept])}  # fmt: skip


def figure(growth: Sequence[Mapping[str, object]], path: Path) -> None:
    """Time and memory relative to the smallest size, on log axes; a dotted line is linear growth."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    from imder_course.style import use_style

    use_style()
    fig, panels = plt.subplots(1, len(growth), figsize=(2.3 * len(growth), 2.6), sharey=True, layout="constrained")
    for ax, g in zip(np.atleast_1d(panels), growth, strict=True):
        x, first = g["sizes"], g["sizes"][0]
        ax.plot(x, [v / first for v in x], ":", color="0.5", label="linear")
        ax.plot(x, [v / g["seconds"][0] for v in g["seconds"]], "o-", label="time")
        if None not in g["memory_mb"]:
            ax.plot(x, [max(v, 1.0) / max(g["memory_mb"][0], 1.0) for v in g["memory_mb"]], "s--", label="memory")
        ax.set(xscale="log", yscale="log", xlabel=NAMES[g["axis"]], title=f"time: slope {g['slope']:.2f}")
        ax.xaxis.set_major_locator(FixedLocator(x))
        ax.xaxis.set_minor_locator(NullLocator())
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            axis.set_minor_formatter(NullFormatter())
    np.atleast_1d(panels)[0].set_ylabel("relative to the smallest")
    np.atleast_1d(panels)[0].legend()
    fig.savefig(path, dpi=130)
