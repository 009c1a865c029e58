"""Seconds for each stage at the sizes of MOSI or MOSEI, and what profile paper takes: projected from a few batches.

python benchmarks/full_size.py mosi
"""

import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from imder_lib import IMDer, model_preset, train_preset
from imder_lib.config import WIDTHS
from imder_lib.data.fake import SIZES
from imder_lib.data.missing import available_columns, patterns
from imder_lib.model.imder import Output
from imder_lib.profiles import profile
from imder_lib.runs.setup import default_device

SAMPLER = 32  # samples that the sampler is timed on
SEEDS, RATES = 9, 8


def best_of(work: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest of some runs: what others do on the machine disturbs it least."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def main(name: str) -> None:
    sizes, device = SIZES[name], default_device()
    config = train_preset(name, **profile("paper").train)
    model = IMDer(model_preset(name, **profile("paper").model), seed=0).to(device)
    B = config.batch_size
    x = {m: torch.randn(B, 50, width, device=device) for m, width in WIDTHS[name].items()}
    y = torch.randn(B, 1, device=device)
    table = available_columns(patterns(model.modalities, complete=False), model.modalities)
    available = table[torch.arange(B) % len(table)].to(device)
    with torch.no_grad():
        latents = model.encode(x)

    def backward(loss: torch.Tensor) -> None:
        model.zero_grad()
        loss.backward()

    def refine() -> torch.Tensor:
        filled = {m: model.refiners[m](v) for m, v in latents.items()}
        return F.l1_loss(model.fusion(filled)[0], y)

    def joint(out: Output) -> torch.Tensor:
        return F.l1_loss(out.prediction, y) + 0.1 * sum(out.losses.values())

    part = {m: v[:SAMPLER] for m, v in latents.items()}
    gone = available[:SAMPLER]
    calls = int((~gone).sum()) * 2  # samples and steps
    per_batch = {
        "fusion": best_of(lambda: backward(F.l1_loss(model.fusion(model.encode(x))[0], y))),
        "score": best_of(lambda: backward(sum(model.score_losses(latents, available).values()))),
        "refine": best_of(lambda: backward(refine())),
        "joint (2 sampler steps)": best_of(lambda: backward(joint(model(x, available, with_losses=True, steps=2)))),
    }
    call = best_of(lambda: model.recover_missing(part, gone, steps=2, refine=False)) / calls
    gone_of_all = int((~table).sum())  # 9: missing modalities over the six incomplete patterns
    batches = -(-sizes["train"] // B)
    bank = gone_of_all * (sizes["train"] + sizes["valid"]) * config.bank_steps * call
    test = gone_of_all * sizes["test"] * model.config.steps * call
    sampler = 1.5 * B * (model.config.steps - 2) * call  # a batch of joint training, half of all modalities missing
    epoch = {"fusion": batches * per_batch["fusion"], "score": batches * per_batch["score"],
             "refine": batches * per_batch["refine"],
             "joint": batches * (per_batch["joint (2 sampler steps)"] + sampler)}  # fmt: skip
    staged = config.score_epochs * epoch["score"] + bank + config.refine_epochs * epoch["refine"] + test
    released = RATES * (config.joint_epochs * epoch["joint"] + test / 3)
    first = config.fusion_epochs * epoch["fusion"]
    print(f"{name} on {device}, {torch.get_num_threads()} threads, batch {B}, {config.bank_steps} sampler steps")
    for k, v in epoch.items():
        print(f"  one epoch of {k:7} {v:10.0f} s")
    print(f"  one network call for one sample {1e3 * call:.2f} ms")
    print(f"  bank            {bank:10.0f} s\n  test, all patterns {test:7.0f} s")
    print(f"  stage 1, at most {config.fusion_epochs} epochs {first / 3600:.1f} h")
    print(f"  paper, staged: {SEEDS} seeds, at most {(first + SEEDS * staged) / 3600:.0f} h")
    print(f"  paper, released: {SEEDS} seeds x {RATES} rates, at most {(first + SEEDS * released) / 3600:.0f} h")


if __name__ == "__main__":
    main(sys.argv[1])
