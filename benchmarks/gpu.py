"""What the kit costs on one GPU: python -m benchmarks.gpu, or benchmarks/gpu.sh. Prints JSON and writes OUT/gpu.json.

Needs Python and PyTorch; packages of the kit that are missing are listed, and the rows that need them fail alone. Each
row is independent: one that fails has its error, and the file is written again after each row. No row starts after
--limit seconds. --device cpu --quick checks in a minute that every row runs.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
import types
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import matrix_product, peak_memory, seconds, settings

ROOT = Path(__file__).resolve().parents[1]
NEEDED = {"numpy": "numpy", "scipy": "scipy", "pandas": "pandas", "sklearn": "scikit-learn", "tqdm": "tqdm",
          "safetensors": "safetensors"}  # fmt: skip
MODALITIES = ("text", "audio", "vision")
TOLERANCE = 1e-4  # of predictions, CPU against GPU in float32


def missing_packages() -> list[str]:
    """Packages that the measured parts of the kit import and this Python lacks."""
    return [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]


def only_submodules() -> None:
    """Import imder_lib without its __init__, which needs every package: rows then fail alone."""
    package = types.ModuleType("imder_lib")
    package.__path__ = [str(ROOT / "imder_lib")]
    sys.modules["imder_lib"] = package


def precision(name: str) -> Any:
    """Set the precision of float32 products and convolutions; the context of "bf16" is autocast."""
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = name == "tf32"
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(kind, torch.bfloat16) if name == "bf16" else nullcontext()


def rates(device: torch.device, quick: bool) -> dict[str, float]:
    """TFLOP/s of a large matrix product by precision: median of 5."""
    size, found = 512 if quick else 8192, {}
    for name in ("float32", "tf32", "bf16"):
        precision(name)
        product = matrix_product(size, device, torch.bfloat16 if name == "bf16" else torch.float32)
        product()
        found[name] = 2e-12 * size**3 / median(seconds(product, 3) for _ in range(5))
    precision("float32")
    return found


def nets(device: torch.device, quick: bool) -> dict[str, tuple[nn.Module, nn.Module | None, Callable]]:
    """Name -> net, its plain path, and a function from the batch size to arguments. Released sizes, T = 48."""
    from benchmarks.plain import PlainFusion, plain_score_net
    from imder_lib.nets.fusion import Fusion
    from imder_lib.nets.joint_net import JointNet
    from imder_lib.nets.score_net import ScoreNet

    torch.manual_seed(0)
    channels = (32, 64, 64, 64) if quick else (32, 64, 128, 256)
    score = ScoreNet(channels).to(device).eval()
    joint, fusion = JointNet(3, 32).to(device).eval(), Fusion(MODALITIES).to(device).eval()
    for p in joint.parameters():  # some start at zero
        p.data.add_(0.02 * torch.randn_like(p))
    plain = PlainFusion(MODALITIES, 32, 8, 4, {}, 0.0).to(device).eval()
    plain.load_state_dict(fusion.state_dict())

    def make(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device)

    def joint_arguments(B: int) -> tuple[Tensor, ...]:
        return make(B, 3, 32, 48), make(B), make(B, 3, 32, 48), make(B, 3) > 0

    return {
        "score-net": (score, plain_score_net(score, channels, 8),
                      lambda B: (make(B, 32, 48), make(B).sigmoid(), make(B, 32, 48))),
        "joint-net": (joint, None, joint_arguments),
        "fusion": (fusion, plain, lambda B: ({m: make(B, 32, 48) for m in MODALITIES},)),
    }  # fmt: skip


def first(out: Tensor | tuple) -> Tensor:
    """The tensor of a net's output, in float32."""
    return (out if isinstance(out, Tensor) else out[0]).float()


def timed(call: Callable[[], object]) -> float:
    """Seconds of a call: median of 5 after two."""
    call()
    call()
    return median(seconds(call, 1 if seconds(call) > 0.1 else 5) for _ in range(5))


@torch.no_grad()
def calls(device: torch.device, quick: bool) -> list[dict[str, object]]:
    """Calls of the nets by batch and precision: ms, ratio to the plain path, error of tf32 and bf16, peak memory."""
    rows = []
    for name, (net, plain, arguments) in nets(device, quick).items():
        for B in (1, 8) if quick else (1, 32, 128, 686, 4096):
            x = arguments(B)
            precision("float32")
            exact = first(net(*x))
            row = {"net": name, "batch": B, "ms": {}, "error": {}}
            for kind in ("float32", "tf32", "bf16"):
                with precision(kind):
                    row["ms"][kind] = 1e3 * timed(lambda net=net, x=x: net(*x))
                    row["error"][kind] = float((first(net(*x)) - exact).norm() / exact.norm())
            precision("float32")
            if plain is not None:
                row["plain_ms"] = 1e3 * timed(lambda plain=plain, x=x: plain(*x))
                row["plain_error"] = float((first(plain(*x)) - exact).abs().max())
            row["peak_mb"] = peak_memory(lambda net=net, x=x: net(*x))
            rows.append(row)
    return rows


@torch.no_grad()
def graphs(device: torch.device, quick: bool) -> dict[str, object]:
    """The same calls replayed as CUDA graphs: ms, and how much of a call was launches."""
    if device.type != "cuda":
        raise ValueError("CUDA graphs need a CUDA device")
    found: dict[str, object] = {}
    for name, (net, _, arguments) in nets(device, quick).items():
        for B in (32, 686):
            x, graph, side = arguments(B), torch.cuda.CUDAGraph(), torch.cuda.Stream()
            try:
                with torch.cuda.stream(side):
                    for _ in range(3):
                        net(*x)
                torch.cuda.synchronize()
                with torch.cuda.graph(graph):
                    net(*x)
                eager = timed(lambda net=net, x=x: net(*x))
                found[f"{name} {B}"] = {"ms": 1e3 * timed(graph.replay), "eager_ms": 1e3 * eager}
            except RuntimeError as error:  # a net that waits for the device cannot be captured
                found[f"{name} {B}"] = {"error": str(error).splitlines()[0]}
                torch.cuda.synchronize()
    return found


def parity(device: torch.device, quick: bool) -> dict[str, object]:
    """Largest difference of float32 predictions, CPU against the device: same weights, same SampleNoise."""
    from benchmarks.gpu_rows import Setup, random_data
    from imder_lib.data.missing import available_columns, patterns
    from imder_lib.diffusion.noise import SampleNoise
    from imder_lib.diffusion.samplers import Sampler
    from imder_lib.model.recovery import encode_split

    precision("float32")
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
                out = model.predict(latents, table.to(where), SampleNoise(1, data.test.ids, "parity"), 2, sampler)
            results.append(out.cpu())
        difference, scale = float((results[0] - results[1]).abs().max()), float(results[0].abs().max())
        found[preset] = {"difference": difference, "largest": scale, "holds": difference <= TOLERANCE * max(1, scale)}
    return found


def larger(name: str) -> Callable[[torch.device, bool, dict], object]:
    """A row of gpu_rows, imported when it runs."""

    def run(device: torch.device, quick: bool, known: dict) -> object:
        from benchmarks import gpu_rows

        precision("float32")
        return getattr(gpu_rows, name)(gpu_rows.Setup(device, quick), known)

    return run


ROWS: dict[str, Callable] = {
    **{f.__name__: (lambda device, quick, known, f=f: f(device, quick)) for f in (rates, parity, calls, graphs)},
    **{name: larger(name) for name in ("steps", "epochs", "recovery", "evaluation", "projection")},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="small sizes, to check that every row runs")
    parser.add_argument("--rows", default=",".join(ROWS), help="rows to run, joined by commas")
    parser.add_argument("--limit", type=float, default=400.0, help="seconds after which no row starts")
    parser.add_argument("--out", default=os.environ.get("OUT", "results/gpu"))
    args = parser.parse_args()
    if bad := [k for k in args.rows.split(",") if k not in ROWS]:
        parser.error(f"unknown row {bad[0]!r}: expected one or more of {','.join(ROWS)}, joined by commas")
    began, device, lacking = time.perf_counter(), torch.device(args.device), missing_packages()
    if lacking:
        print(f"missing packages: {' '.join(lacking)}. Where there is a network: python3 -m pip download -d wheels "
              f"{' '.join(lacking)}; then benchmarks/gpu.sh wheels", file=sys.stderr)  # fmt: skip
        only_submodules()
    head = settings(device) | {"missing_packages": lacking, "quick": args.quick}
    if device.type == "cuda":
        query = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
        head["driver"] = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
    found, path = {"settings": head}, Path(args.out) / "gpu.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in args.rows.split(","):
        started = time.perf_counter()
        try:
            if started - began > args.limit:
                raise TimeoutError(f"not started: {args.limit:.0f} s were over")
            result = ROWS[name](device, args.quick, found)
            found[name] = result if isinstance(result, dict) else {"rows": result}
        except Exception as error:
            found[name] = {"error": f"{type(error).__name__}: {error}"}
        found[name]["took"] = round(time.perf_counter() - started, 1)
        print(f"{name}: {found[name].get('error', 'done')}, {found[name]['took']} s", file=sys.stderr, flush=True)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
