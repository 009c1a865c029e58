"""Time per stage at the sizes of MOSI or MOSEI, and the projected time of profile full, from a few batches.

Epochs are forward and backward passes, without the optimiser's steps, clipping and validation; every epoch is counted,
though early stopping ends most stages sooner.

python benchmarks/full_size.py mosi
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F

from imder_lib import IMDer, model_preset, train_preset
from imder_lib.config import WIDTHS
from imder_lib.data.missing import available_columns, patterns
from imder_lib.experiment.recovered_cache import DRAWS
from imder_runs.fake import SIZES
from imder_runs.profiles import find_profile
from imder_runs.setup import default_device

SAMPLER = 32  # samples for the timing of the sampler
SEEDS, RATES = 9, 8


def best_of(work: Callable[[], object], times: int = 3) -> float:
    """Seconds of the fastest of several runs, which other processes disturb least."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def main(name: str) -> None:
    sizes, device, budget = SIZES[name], default_device(), find_profile("full")
    config = train_preset(name, **budget.train)
    B = config.batch_size
    x = {m: torch.randn(B, 50, width, device=device) for m, width in WIDTHS[name].items()}
    y = torch.randn(B, 1, device=device)
    batches, samples = -(-sizes["train"] // B), sizes["train"] + sizes["valid"]
    print(f"{name} on {device}, {torch.get_num_threads()} threads, batch {B}")
    for preset in ("kit", "released"):
        model = IMDer(model_preset(name, preset=preset, **budget.model), seed=0).to(device)
        steps = model.config.sampler.steps
        table = available_columns(patterns(model.modalities, complete=False), model.modalities)
        available = table[torch.arange(B) % len(table)].to(device)
        with torch.no_grad():
            latents = model.encode(x)
        part, mask = {m: v[:SAMPLER] for m, v in latents.items()}, available[:SAMPLER]

        def backward(loss: torch.Tensor, model: IMDer = model) -> None:
            model.zero_grad()
            if loss.requires_grad:
                loss.backward()

        def fusion(model: IMDer = model) -> torch.Tensor:
            return F.l1_loss(model.fusion(model.encode(x))[0], y)

        def diffusion(
            model: IMDer = model, latents: dict = latents, available: torch.Tensor = available
        ) -> torch.Tensor:
            return sum(model.recoverer.losses(latents, available).values())

        def adapt(model: IMDer = model, latents: dict = latents) -> torch.Tensor:
            return F.l1_loss(
                model.fusion({m: model.refine(m, v) if m in model.refiners else v for m, v in latents.items()})[0], y
            )

        epoch = {k: batches * best_of(lambda f=f: backward(f())) for k, f in
                 (("fusion", fusion), ("diffusion", diffusion), ("adapt", adapt))}  # fmt: skip
        with torch.no_grad():  # one draw of one sample under one incomplete pattern
            two = best_of(lambda: model.recover(part, mask, sampler=replace(model.config.sampler, steps=2)))  # noqa: B023
            draw = two / SAMPLER * steps / 2
        test = len(table) * sizes["test"] * draw * budget.draws
        if preset == "kit":  # its draws need no stage adapt
            shown = {k: epoch[k] for k in ("fusion", "diffusion")} | {"test": test}
        else:  # recipe staged trains on all draws, recipe released on one
            cache = DRAWS * len(table) * samples * draw
            shown = epoch | {"adapt": DRAWS * epoch["adapt"], "cache": cache, "test": test}
        print(f"  {preset}, {steps} sampler steps")
        for k, v in shown.items():
            print(f"    {'one epoch of ' if k in epoch else ''}{k}: {v:.0f} s")
        first = config.fusion.epochs * epoch["fusion"]
        if preset == "kit":
            epochs = config.diffusion.epochs_of(-(-sizes["train"] // config.diffusion.batch_size))
            cells = SEEDS * (epochs * epoch["diffusion"] + test)
        else:  # the sampler runs for incomplete samples, about two of three, in every epoch
            joint = epoch["diffusion"] + epoch["adapt"] + 2 / 3 * samples * draw
            cells = SEEDS * (RATES * config.joint.epochs * joint + test)
        hours, of_fusion = (first + cells) / 3600, first / 3600
        print(f"    profile full, {SEEDS} seeds: about {hours:.0f} h, fusion stage {of_fusion:.1f} h")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=SIZES)
    main(parser.parse_args().name)
