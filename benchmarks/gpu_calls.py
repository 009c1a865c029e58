"""The rows of gpu.py that need only PyTorch: matrix rates, calls of the nets, CUDA graphs, torch.compile."""

from collections.abc import Callable
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.graphs import EAGER, Graphed
from benchmarks.measure import alternate, count_flops, matrix_product, peak_memory, seconds

MODALITIES = ("text", "audio", "vision")
PRECISIONS = ("float32", "tf32", "bfloat16")


def rates(device: torch.device, quick: bool) -> dict[str, float]:
    """TFLOP/s of a large matrix product by precision: median of 5."""
    from imder_lib.nets.precision import computing

    size, found = 512 if quick else 8192, {}
    for name in PRECISIONS:
        product = matrix_product(size, device, torch.bfloat16 if name == "bfloat16" else torch.float32)
        with computing(name, device):
            product()
            found[name] = 2e-12 * size**3 / median(seconds(product, 3) for _ in range(5))
    return found


def nets(device: torch.device, quick: bool) -> dict[str, tuple[nn.Module, nn.Module | None, Callable]]:
    """Name -> net, its plain path, and a function from the batch size to arguments. Released sizes, T = 48."""
    from benchmarks.plain import PlainFusion, plain_score_net
    from imder_lib.config import FusionConfig
    from imder_lib.nets.fusion import Fusion
    from imder_lib.nets.joint_net import JointNet
    from imder_lib.nets.score_net import ScoreNet

    torch.manual_seed(0)
    channels = (32, 64, 64, 64) if quick else (32, 64, 128, 256)
    score = ScoreNet(channels).to(device).eval()
    layers = 1 if quick else 4
    joint = JointNet(3, 32, blocks=2 * layers).to(device).eval()
    fusion = Fusion(MODALITIES, 32, FusionConfig(layers=layers)).to(device).eval()
    for p in joint.parameters():  # some start at zero
        p.data.add_(0.02 * torch.randn_like(p))
    plain = PlainFusion(MODALITIES, 32, 8, layers, {}, 0.0).to(device).eval()
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
    """Calls of the nets by batch and precision: ms, ratio to the plain path, error of lower ones, peak memory."""
    from imder_lib.nets.precision import computing

    rows = []
    for name, (net, plain, arguments) in nets(device, quick).items():
        for B in (1, 8) if quick else (1, 32, 128, 686, 4096):
            x = arguments(B)
            exact = first(net(*x))
            row = {"net": name, "batch": B, "ms": {}, "error": {}}
            row["gflop"] = count_flops(lambda net=net, x=x: net(*x)) / 1e9
            for kind in PRECISIONS:
                with computing(kind, device):
                    row["ms"][kind] = 1e3 * timed(lambda net=net, x=x: net(*x))
                    row["error"][kind] = float((first(net(*x)) - exact).norm() / exact.norm())
            if plain is not None:
                row["plain_ms"] = 1e3 * timed(lambda plain=plain, x=x: plain(*x))
                row["plain_error"] = float((first(plain(*x)) - exact).abs().max())
            row["peak_mb"] = peak_memory(lambda net=net, x=x: net(*x), device)
            rows.append(row)
    return rows


def graphs(device: torch.device, quick: bool) -> list[dict[str, object]]:
    """The nets with and without CUDA graphs: ms of a call and of a training pass, and how far the results differ."""
    if device.type != "cuda":
        raise ValueError("CUDA graphs need a CUDA device")
    rows = []
    for name, (net, _, arguments) in nets(device, quick).items():
        for B in (32, 686):
            x, row, outputs = arguments(B), {"net": name, "batch": B}, []
            rows.append(row)
            try:
                for way, call in (("eager", net), ("graph", Graphed(net, net.forward))):
                    for _ in range(EAGER + 1):
                        results = training_pass(net, call, x)
                    outputs.append(results)
                    row[f"training_{way}_ms"] = 1e3 * timed(lambda net=net, call=call, x=x: training_pass(net, call, x))
                    with torch.no_grad():
                        row[f"{way}_ms"] = 1e3 * timed(lambda call=call, x=x: call(*x))
                pairs = zip(*outputs, strict=True)
                row["difference"] = max(float((b - a).norm() / a.norm().clamp(min=1e-12)) for a, b in pairs)
            except RuntimeError as error:  # a net that waits for the device cannot be recorded
                row["error"] = str(error).splitlines()[0]
                torch.cuda.synchronize()
    return rows


def training_pass(net: nn.Module, call: Callable[..., object], x: tuple) -> list[Tensor]:
    """Forward and backward pass of a call of the net: the output and all gradients."""
    net.zero_grad()
    with torch.enable_grad():
        out = first(call(*x))
        out.square().mean().backward()
    return [out.detach(), *(p.grad.clone() for p in net.parameters() if p.grad is not None)]


def by_taps(conv: nn.Conv1d, h: Tensor) -> Tensor:
    """The convolution of the joint net, of h (B, T, C): one product for each tap, as in the library."""
    from imder_lib.nets.joint_net import time_conv

    return time_conv(conv, h)


def by_cudnn(conv: nn.Conv1d, h: Tensor) -> Tensor:
    """The same by a convolution with channels last, so that nothing is transposed."""
    d, x = conv.dilation[0], h.unsqueeze(1).permute(0, 3, 1, 2)  # (B, C, 1, T)
    y = F.conv2d(x, conv.weight[:, :, None], conv.bias, padding=(0, d), dilation=(1, d))
    return y.permute(0, 2, 3, 1)[:, 0]


def by_columns(conv: nn.Conv1d, h: Tensor) -> Tensor:
    """The same as one product with three steps side by side."""
    d = conv.dilation[0]
    none = h.new_zeros(len(h), d, h.shape[2])
    before, after = torch.cat([none, h[:, :-d]], dim=1), torch.cat([h[:, d:], none], dim=1)
    columns = torch.cat([before, h, after], dim=2)
    return F.linear(columns, conv.weight.transpose(1, 2).flatten(1), conv.bias)


def convolutions(device: torch.device, quick: bool) -> list[dict[str, object]]:
    """Ways to compute a convolution of the joint net: ms of a call, of a training pass, and the error."""
    from imder_lib.nets.precision import computing

    conv, rows = nn.Conv1d(128, 128, 3, padding=4, dilation=4).to(device), []
    for B in (8,) if quick else (128, 4096):
        h = torch.randn(B, 50, 128, device=device)
        with torch.no_grad():
            exact = conv(h.transpose(1, 2)).transpose(1, 2)
        for way in (by_taps, by_cudnn, by_columns):
            row = {"way": way.__name__, "batch": B, "ms": {}, "training_ms": {}, "error": {}}
            for kind in PRECISIONS:
                with computing(kind, device), torch.no_grad():
                    row["ms"][kind] = 1e3 * timed(lambda h=h, way=way: way(conv, h))
                    row["error"][kind] = float((way(conv, h) - exact).norm() / exact.norm())
                with computing(kind, device):
                    call = partial(way, conv)
                    row["training_ms"][kind] = 1e3 * timed(lambda h=h, call=call: training_pass(conv, call, (h,)))
            rows.append(row)
    return rows


@torch.no_grad()
def compiled(device: torch.device, quick: bool) -> list[dict[str, object]]:
    """Calls with and without torch.compile, which has one shape to work for: seconds of compilation, ms, error."""
    mode, rows = "reduce-overhead" if device.type == "cuda" else "default", []
    for name, (net, plain, arguments) in nets(device, quick).items():
        for B in (8,) if quick else (32, 128):
            torch.compiler.reset()
            x, fast = arguments(B), torch.compile(net, mode=mode, dynamic=False)
            ways = {"": net, "compiled_": fast} | ({} if plain is None else {"plain_": plain})
            row = {"net": name, "batch": B, "compile_s": seconds(lambda fast=fast, x=x: fast(*x))}
            times = alternate([lambda call=call, x=x: call(*x) for call in ways.values()])
            row |= {f"{way}ms": 1e3 * median(t) for way, t in zip(ways, times, strict=True)}
            exact = first(net(*x))
            rows.append(row | {"error": float((first(fast(*x)) - exact).norm() / exact.norm())})
    return rows
