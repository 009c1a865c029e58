"""The larger rows of gpu.py: recovery of a test split, training of each stage, the projected table. MOSI's sizes."""

import io
import json
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.bench_rows import stage_of, training_step
from benchmarks.graphs import Graphed
from benchmarks.measure import peak_memory, seconds
from imder_lib.config import WIDTHS, model_preset, train_preset
from imder_lib.data.missing import available_columns, patterns
from imder_lib.data.mmsa import SIZES
from imder_lib.data.schema import MultimodalData, Split
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.experiment.evaluation import evaluate
from imder_lib.experiment.stages import adapt_stage, diffusion_stage, fusion_stage
from imder_lib.experiment.training import fit
from imder_lib.model.imder import IMDer
from imder_lib.model.recovery import encode_split
from imder_lib.settings import changed
from imder_runs.profiles import find_profile

STEPS = 50
STAGES = {"fusion": fusion_stage, "diffusion": diffusion_stage, "adapt": adapt_stage}
OWN = {"adapt": {"recoverer": "regression"}}  # the kit's draws need no stage adapt
PART = 128  # samples on the CPU, scaled to the test split
PATIENCE = 75.0  # seconds: what is projected to take longer is measured in part and scaled


@dataclass(frozen=True)
class Setup:
    """Where and how much: device, and whether to use small sizes, for a check."""

    device: torch.device
    quick: bool = False

    @property
    def sizes(self) -> dict[str, int]:
        return {"train": 64, "valid": 16, "test": 24} if self.quick else SIZES["mosi"]

    @property
    def draws(self) -> int:
        return 2 if self.quick else find_profile("full").draws

    def model(self, preset: str = "kit", **changes: object) -> IMDer:
        """A model with random numbers in all weights; the kit starts some at zero, which hides differences."""
        small = dict(find_profile("smoke").model) if self.quick else {}
        model = IMDer(model_preset("mosi", preset=preset, **small | changes), seed=0).to(self.device).eval()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.02 * torch.randn(p.shape, generator=generator).to(p))
        return model


def random_data(sizes: dict[str, int]) -> MultimodalData:
    """Random numbers with MOSI's widths and T = 50."""
    splits, rng = {}, np.random.default_rng(0)
    for name, n in sizes.items():
        x = {m: rng.standard_normal((n, STEPS, width), dtype=np.float32) for m, width in WIDTHS["mosi"].items()}
        labels = rng.uniform(-3, 3, n).astype(np.float32)
        splits[name] = Split(x, labels, [f"{name} {i}" for i in range(n)], STEPS)
    return MultimodalData("random", splits, "")


def recovery(setup: Setup, known: dict) -> dict[str, object]:
    """All incomplete patterns of a test split, K draws: seconds, and what the noise and the batch size change."""
    model, data = setup.model(), random_data(setup.sizes)
    latents, ids, n = encode_split(model, data.test), data.test.ids, len(data.test)
    table = available_columns(patterns(model.modalities, complete=False), model.modalities).to(setup.device)
    model.recoverer.prepare(latents)

    def draw(row: torch.Tensor, draws: int, noise: object = None, latents: dict = latents) -> dict:
        return model.recover(latents, row.expand(len(latents["text"]), -1), noise, draws)

    draw(table[0], 1)
    own = seconds(lambda: draw(table[0], 1, SampleNoise(1, ids, "gpu")))
    default = seconds(lambda: draw(table[0], 1))
    many = max(1, min(setup.draws, 4 if setup.device.type == "cpu" else setup.draws))
    wide = {m: x.repeat(many, 1, 1) for m, x in latents.items()}  # draws as rows of one batch
    draw(table[0], 1, latents=wide)
    batched = seconds(lambda: draw(table[0], 1, latents=wide)) / many
    cores = two_cores(setup, {m: x[:PART] for m, x in latents.items()}, table[0]) * n / min(n, PART)
    shown = max(1, min(len(table), int(PATIENCE / max(own * setup.draws, 1e-9))))
    draws = setup.draws if own * setup.draws <= PATIENCE else max(1, int(PATIENCE / own))
    took = seconds(lambda: [draw(row, draws, SampleNoise(1, ids, "gpu")) for row in table[:shown]])
    return {
        "samples": n,
        "patterns": len(table),
        "draws": setup.draws,
        "seconds": took * len(table) / shown * setup.draws / draws,
        "measured": f"{shown} of {len(table)} patterns, {draws} of {setup.draws} draws",
        "one_draw": own,
        "one_draw_default_generator": default,
        "one_draw_in_one_batch_of_all_draws": batched,
        "one_draw_two_cores": cores,
        "times_two_cores": cores / own,
        "peak_mb": peak_memory(lambda: draw(table[0], setup.draws, SampleNoise(1, ids, "gpu")), setup.device),
    }


def two_cores(setup: Setup, latents: dict, row: torch.Tensor) -> float:
    """Seconds of one draw on two threads of this machine's CPU."""
    model, threads = setup.model().cpu(), torch.get_num_threads()
    part, rows = {m: x.cpu() for m, x in latents.items()}, row.cpu().expand(len(latents["text"]), -1)
    torch.set_num_threads(2)
    try:
        return min(seconds(lambda: model.recover(part, rows)) for _ in range(3))
    finally:
        torch.set_num_threads(threads)


def evaluation(setup: Setup, known: dict) -> dict[str, object]:
    """evaluate() over all patterns and rates, without baselines, with recovery, fusion and metrics."""
    model, data = setup.model(), random_data(setup.sizes)
    model.recoverer.prepare(encode_split(model, data.train))
    one = seconds(lambda: evaluate(model, data.test, [("fixed", "text")], draws=1, baselines=False))
    one = min(one, seconds(lambda: evaluate(model, data.test, [("fixed", "text")], draws=1, baselines=False)))
    draws = max(1, min(setup.draws, int(PATIENCE / (7 * one))))
    took = seconds(lambda: evaluate(model, data.test, draws=draws, baselines=False))
    return {"seconds": took * setup.draws / draws, "draws": setup.draws, "measured": f"{draws} draws"}


def steps(setup: Setup, known: dict) -> dict[str, object]:
    """One training step of each stage, on the trainer's batch sizes: seconds (median of 5) and peak memory.

    Stage adapt is that of recoverer "regression", here and in :func:`epochs`.
    """
    data, found = random_data(setup.sizes | {"train": 128, "valid": 8}), {}
    for name, build in STAGES.items():
        model = setup.model(**OWN.get(name, {}))
        step = training_step(model, stage_of(build, model, data, train_preset("mosi", adapt={"patterns": 1})))
        step()
        step()
        took = median(seconds(step, 3) for _ in range(5))
        found[name] = {"seconds": took, "peak_mb": peak_memory(step, setup.device)}
    return found


def graphed_steps(setup: Setup, known: dict) -> dict[str, object]:
    """The same steps if the net's forward and backward passes are CUDA graphs; without masks of padding."""
    if setup.device.type != "cuda":
        raise ValueError("CUDA graphs need a CUDA device")
    data, found = random_data(setup.sizes | {"train": 128, "valid": 8}), {}
    for name in ("fusion", "diffusion"):
        model = setup.model(mask_padding=False)
        net, method = {"fusion": (model.fusion, "forward"), "diffusion": (model.recoverer.net, "estimate")}[name]
        graphed = Graphed(net, getattr(net, method))
        setattr(net, method, graphed)
        step = training_step(model, stage_of(STAGES[name], model, data, train_preset("mosi")))
        for _ in range(5):
            step()
        took = median(seconds(step, 3) for _ in range(5))
        found[name] = {"seconds": took, "graphs": len(graphed.graphs)}
    return found


def processes(setup: Setup, known: dict) -> dict[str, object]:
    """Steps per second of each stage, all processes together, with 1, 4 and 8 processes on the device.

    They start together, but measure a stage at about the same time only.
    """
    found = {}
    for n in (1, 2) if setup.quick else (1, 4, 8):
        with tempfile.TemporaryDirectory() as folder:
            options = ["--device", setup.device.type, "--rows", "steps", *(["--quick"] if setup.quick else [])]
            command = [sys.executable, "-m", "benchmarks.gpu", *options, "--out"]
            outputs = [Path(folder) / str(i) for i in range(n)]
            started = [subprocess.Popen([*command, str(o)], stdout=subprocess.DEVNULL) for o in outputs]
            try:
                for process in started:
                    process.wait()
            finally:  # also at the time limit
                for process in started:
                    process.kill()
                    process.wait()
            rows = [json.loads((o / "gpu.json").read_text(encoding="utf-8"))["steps"] for o in outputs]
        if errors := [row["error"] for row in rows if "error" in row]:
            raise RuntimeError(errors[0])
        found[f"{n} processes"] = {name: sum(1 / row[name]["seconds"] for row in rows) for name in STAGES}
    return found


def epochs(setup: Setup, known: dict) -> dict[str, object]:
    """An epoch of each stage, with validation and checkpoint, as fit() runs it: the median from the second on."""
    count = 2 if setup.quick else 4
    config = train_preset("mosi", adapt={"patterns": 1}, diffusion={"least_steps": 0})
    config = changed(config, **{name: {"epochs": count} for name in STAGES})
    data, model, found = random_data(setup.sizes), setup.model(), {}
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        for name in STAGES:
            one = setup.model(**OWN[name]) if name in OWN else model
            settings = changed(config, fusion={"epochs": 0}) if name in OWN else config
            done = fit(one, data, settings, Path(folder) / one.config.recoverer, resume=True, until=name)
            rows = done.history[done.history["stage"] == name]
            own = rows["seconds"][rows["epoch"] > 0].tolist()
            found[name] = {"epoch": median(own[1:]), "first_epoch": own[0], "beside_epochs": done.seconds - sum(own)}
    return found


def projection(setup: Setup, known: dict) -> dict[str, object]:
    """Hours of the full-size table (kit, 9 seeds, all rates and patterns), from the other rows, stages at full length.

    MOSEI's are MOSI's times the ratio of the numbers of samples; its larger batches and six layers are not measured.
    """
    if missing := [k for k in ("epochs", "evaluation") if "error" in known.get(k, {"error": ""})]:
        raise ValueError(f"needs the rows {missing}")
    budget, out = find_profile("full"), {}
    for name in ("mosi", "mosei"):
        config, sizes = train_preset(name, **budget.train), SIZES[name]
        grown = {k: sizes[k] / setup.sizes[k] for k in sizes}
        diffusion = config.diffusion.epochs_of(-(-sizes["train"] // config.diffusion.batch_size))
        train = {k: known["epochs"][k]["epoch"] * grown["train"] for k in ("fusion", "diffusion")}
        test = known["evaluation"]["seconds"] * grown["test"]
        seed = diffusion * train["diffusion"] + test
        seeds = len(budget.seeds.split(","))
        parts = {"fusion_once": config.fusion.epochs * train["fusion"], "diffusion": diffusion * train["diffusion"]}
        parts["test"] = test
        out[name] = {"hours": (parts["fusion_once"] + seeds * seed) / 3600, "seeds": seeds, "seconds": parts}
    return out
