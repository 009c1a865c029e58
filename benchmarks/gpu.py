"""What the kit costs on one GPU: python -m benchmarks.gpu, or benchmarks/gpu.sh. Prints JSON and writes OUT/gpu.json.

Needs Python and PyTorch; packages of the kit that are missing are listed, and the rows that need them fail alone. Each
row is independent: one that fails has its error, and the file is written again after each row. After --limit seconds
the row that runs is stopped and no other starts. --device cpu --quick checks the rows that need no CUDA. The exit code
is 1 if a row has an error, or if CPU and GPU do not agree.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
import types
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.gpu_calls import MODALITIES, calls, compiled, convolutions, graphs, rates
from benchmarks.measure import settings

ROOT = Path(__file__).resolve().parents[1]
NEEDED = {"numpy": "numpy", "scipy": "scipy", "pandas": "pandas", "sklearn": "scikit-learn", "tqdm": "tqdm",
          "safetensors": "safetensors"}  # fmt: skip
TOLERANCE = 1e-4  # of predictions, CPU against GPU in float32


def missing_packages() -> list[str]:
    """Packages that the measured parts of the kit import and this Python lacks."""
    return [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]


def only_submodules() -> None:
    """Import imder_lib without its __init__, which needs every package: rows then fail alone."""
    package = types.ModuleType("imder_lib")
    package.__path__ = [str(ROOT / "imder_lib")]
    sys.modules["imder_lib"] = package


def parity(device: torch.device, quick: bool) -> dict[str, object]:
    """Largest difference of float32 predictions, CPU against the device: same weights, same SampleNoise."""
    from benchmarks.gpu_rows import Setup, random_data
    from imder_lib.data.missing import available_columns, patterns
    from imder_lib.diffusion.noise import SampleNoise
    from imder_lib.diffusion.samplers import Sampler
    from imder_lib.model.recovery import encode_split

    cpu, data, found = torch.device("cpu"), random_data({"train": 32, "valid": 4, "test": 28}), {}
    samplers = {"kit": None, "released": Sampler("em", 10, "released")}
    for preset, sampler in samplers.items():
        results = []
        for where in (cpu, device):
            model = Setup(cpu, quick).model(preset)
            model.recoverer.prepare(encode_split(model, data.train))
            model = model.to(where)
            latents = encode_split(model, data.test)
            table = available_columns(patterns(MODALITIES), MODALITIES).repeat(4, 1)
            with torch.no_grad():
                noise, mask = SampleNoise(1, data.test.ids, "parity"), table.to(where)
                out = model.predict(model.recover(latents, mask, noise, 2, sampler), mask)
            results.append(out.cpu())
        difference, scale = float((results[0] - results[1]).abs().max()), float(results[0].abs().max())
        found[preset] = {"difference": difference, "largest": scale, "holds": difference <= TOLERANCE * max(1, scale)}
    return found


def larger(name: str) -> Callable[[torch.device, bool, dict], object]:
    """A row of gpu_rows, imported when it runs."""

    def run(device: torch.device, quick: bool, known: dict) -> object:
        from benchmarks import gpu_rows

        return getattr(gpu_rows, name)(gpu_rows.Setup(device, quick), known)

    return run


ROWS: dict[str, Callable] = {
    **{f.__name__: (lambda device, quick, known, f=f: f(device, quick)) for f in (rates, parity, calls)},
    **{name: larger(name) for name in ("steps", "epochs", "recovery", "evaluation", "projection")},
    # A recording that fails can spoil what follows, and the last row may take the rest of the time.
    "convolutions": lambda device, quick, known: convolutions(device, quick),
    "processes": larger("processes"),
    "graphs": lambda device, quick, known: graphs(device, quick),
    "graphed_steps": larger("graphed_steps"),
    "compiled": lambda device, quick, known: compiled(device, quick),
}
ON_CUDA = ("graphs", "graphed_steps")
ASKED = ("compiled",)  # takes minutes of its own


def failed(found: dict[str, dict]) -> list[str]:
    """Rows with an error, and parity if it does not hold."""
    parts = found.get("parity", {}).values()
    apart = any(not part["holds"] for part in parts if isinstance(part, dict))
    return [name for name, row in found.items() if "error" in row] + ["parity"] * apart


def stop(number: int, frame: types.FrameType | None) -> None:
    """End the row that runs."""
    raise TimeoutError("the time of the whole run is over")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="small sizes, to check that every row runs")
    parser.add_argument("--rows", default="", help="joined by commas; empty: all that the device can, but compiled")
    parser.add_argument("--limit", type=float, default=450.0, help="seconds of the whole run")
    parser.add_argument("--out", default=os.environ.get("OUT", "results/gpu"))
    args = parser.parse_args()
    on_cuda = torch.device(args.device).type == "cuda"
    able = [k for k in ROWS if k not in ASKED and (on_cuda or k not in ON_CUDA)]
    chosen = args.rows.split(",") if args.rows else able
    if bad := [k for k in chosen if k not in ROWS]:
        parser.error(f"unknown row {bad[0]!r}: expected one or more of {','.join(ROWS)}, joined by commas")
    began, device, lacking = time.perf_counter(), torch.device(args.device), missing_packages()
    if lacking:
        print(f"missing packages: {' '.join(lacking)}. Where there is a network: python3 -m pip download -d wheels "
              f"{' '.join(lacking)}; then benchmarks/gpu.sh wheels", file=sys.stderr)  # fmt: skip
        only_submodules()
    from imder_lib.nets.precision import computing  # after only_submodules

    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    head = settings(device) | {"version": version, "missing_packages": lacking, "quick": args.quick}
    if device.type == "cuda":
        query = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
        head["driver"] = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(max(1, round(args.limit)))
    found, path = {"settings": head}, Path(args.out) / "gpu.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        started = time.perf_counter()
        try:
            if started - began > args.limit - 5:
                raise TimeoutError(f"not started: {args.limit:.0f} s are over")
            with computing("float32", device):  # where a row does not say otherwise
                result = ROWS[name](device, args.quick, found)
            found[name] = result if isinstance(result, dict) else {"rows": result}
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {error}"}
        found[name]["took"] = round(time.perf_counter() - started, 1)
        print(f"{name}: {found[name].get('error', 'done')}, {found[name]['took']} s", file=sys.stderr, flush=True)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    signal.alarm(0)
    print(path.read_text(encoding="utf-8"))
    if bad := failed(found):
        sys.exit(f"failed: {', '.join(bad)}")


if __name__ == "__main__":
    main()
