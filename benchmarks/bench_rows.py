"""The rows of bench.py: each function yields the cases of one row, at the released sizes (T = 50, MOSI's widths)."""

import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.measure import Call, Case
from benchmarks.plain import plain_model
from imder_lib.config import RELEASED_SAMPLER, TrainConfig, model_preset, train_preset
from imder_lib.data.missing import availability, available_columns
from imder_lib.data.schema import MultimodalData
from imder_lib.data.synthetic import synthetic
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.experiment.cases import cases
from imder_lib.experiment.evaluation import evaluate
from imder_lib.experiment.stages import adapt_stage, diffusion_stage, fusion_stage
from imder_lib.experiment.trainer import Stage
from imder_lib.model.imder import IMDer

TEST = 686  # samples of MOSI's test split
CHECKED = 128  # largest batch whose outputs are compared, to save time
PART, PART_STEPS = 32, 4  # the release's rule is timed on so many samples and sampler steps, then scaled


@dataclass(frozen=True)
class Sizes:
    """How much work: batches of the calls, samples of a test split, of the slower rows, and draws."""

    batches: tuple[int, ...] = (1, 32, 128, TEST)
    test: int = TEST
    part: int = 32
    draws: int = 2


QUICK = Sizes(batches=(1, 8), test=32, part=4, draws=1)
STEPS = 50


def _latents(model: IMDer, n: int, steps: int = STEPS) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(n)
    return {m: torch.randn(n, model.config.dim, steps, generator=generator) for m in model.modalities}


def _ids(n: int) -> list[str]:
    return [f"sample {i}" for i in range(n)]


def _silent(call: Call) -> Call:
    """A call without its lines of progress, and without gradients."""

    def run() -> object:
        with redirect_stdout(io.StringIO()), torch.no_grad():
            return call()

    return run


def _kit() -> IMDer:
    return IMDer(model_preset("mosi"), seed=0).eval()


def _released(steps: int = PART_STEPS) -> IMDer:
    sampler = replace(RELEASED_SAMPLER, steps=steps)
    return IMDer(model_preset("mosi", preset="released", sampler=sampler), seed=0).eval()


def score(sizes: Sizes) -> Iterator[Case]:
    """One call of the release's U-Net."""
    model = _released()
    kit, plain = (x.recoverer.score_nets["audio"] for x in (model, plain_model(model)))
    for B in sizes.batches:
        x, condition = _latents(model, B)["audio"], _latents(model, B)["text"]
        t = torch.linspace(0.01, 1, B)
        calls = [_silent(lambda net=net, a=(x, t, condition): net(*a)) for net in (kit, plain)]
        yield Case(
            "score-net call",
            B,
            calls[0],
            [(1.0, calls[1])],
            "the plain path",
            outputs=tuple(calls) if B <= CHECKED else None,
        )


def joint(sizes: Sizes) -> Iterator[Case]:
    """One call of the joint net."""
    model, released = _kit(), plain_model(_released())
    for B in sizes.batches:
        latents, t = _latents(model, B), torch.linspace(0.01, 1, B)
        x, available = torch.stack(list(latents.values()), dim=1), torch.tensor([[True, False, False]]).expand(B, 3)
        kit = _silent(lambda a=(x, t, x, available): model.recoverer.net(*a))
        pair = (latents["audio"], t, latents["text"])
        two = _silent(lambda a=pair: released.recoverer.score_nets["audio"](*a))
        yield Case("joint-net call", B, kit, [(2.0, two)], "two score-net calls of the plain path: two are missing")


def fusion(sizes: Sizes) -> Iterator[Case]:
    """The fusion of one draw."""
    model = _released()
    plain = plain_model(model)
    for B in sizes.batches:
        latents = _latents(model, B)
        calls = [_silent(lambda net=x.fusion, z=latents: net(z)[0]) for x in (model, plain)]
        yield Case(
            "fusion", B, calls[0], [(1.0, calls[1])], "the plain path", outputs=tuple(calls) if B <= CHECKED else None
        )


def encode(sizes: Sizes) -> Iterator[Case]:
    """Features to latents."""
    model, released = _kit(), _released()
    for B in sizes.batches:
        x = {m: torch.randn(B, STEPS, width) for m, width in model.config.widths.items()}
        calls = [_silent(lambda net=net, x=x: net.encode(x)) for net in (model, released)]
        yield Case("encode", B, calls[0], [(1.0, calls[1])], "the release's encoders, which read three frames")


def recovery(sizes: Sizes) -> Iterator[Case]:
    """One draw of all samples of a test split."""
    model, released, n = _kit(), _released(), sizes.test
    plain = plain_model(released)
    scale = RELEASED_SAMPLER.steps / PART_STEPS * n / PART
    for pattern in (("text", "audio"), ("text",)):
        row = available_columns([pattern], model.modalities)
        whole, part = _latents(model, n), _latents(model, PART)

        def draw(model: IMDer, latents: dict, row: Tensor = row) -> Tensor:
            ids = _ids(len(latents["text"]))
            return model.recover(latents, row.expand(len(ids), -1), SampleNoise(1, ids, "bench"))["vision"]

        kit = _silent(lambda draw=draw, z=whole: draw(model, z))
        pair = [_silent(lambda draw=draw, net=net, z=part: draw(net, z)) for net in (released, plain)]
        note = f"the release's rule on the plain path: {PART} samples and {PART_STEPS} of 100 steps, scaled linearly"
        yield Case(f"recovery, {3 - len(pattern)} missing", n, kit, [(scale, pair[1])], note, outputs=tuple(pair))


def training_step(model: nn.Module, stage: Stage, available: Tensor | None = None) -> Call:
    """A call that makes one step: the stage's loss, gradients, clipping, AdamW; always on the same batch."""
    optimiser = torch.optim.AdamW(stage.groups(), weight_decay=stage.settings.weight_decay, fused=True)
    parameters = [p for group in stage.groups() for p in group["params"]]
    rows, generator = torch.arange(stage.size)[: stage.settings.batch_size], torch.Generator().manual_seed(1)

    def step() -> None:
        model.eval()
        for part in stage.parts:
            part.train()
        optimiser.zero_grad()
        loss = stage.loss(rows, generator, available)
        loss.backward()
        nn.utils.clip_grad_value_(parameters, 1.0)
        optimiser.step()

    return step


def stage_of(build: Callable[..., Stage], model: IMDer, data: MultimodalData, config: TrainConfig) -> Stage:
    """A stage without its line of progress."""
    with redirect_stdout(io.StringIO()):
        return build(model, data, config)


def training(sizes: Sizes) -> Iterator[Case]:
    """One training step of each stage: batch 32, diffusion 128."""
    data = synthetic({"train": 128, "valid": 8, "test": 8}, steps=STEPS)
    config = train_preset("mosi", adapt={"patterns": 1})
    kit, given = (IMDer(model_preset("mosi", recoverer=name), seed=0) for name in ("diffusion", "regression"))
    released = plain_model(_released(steps=2))
    old = replace(config, recipe="released")
    plain = training_step(released, stage_of(fusion_stage, released, data, old))
    note = "the release's stage on the plain path"
    yield Case("training step, fusion", 32, training_step(kit, stage_of(fusion_stage, kit, data, config)),
               [(1.0, plain)], note)  # fmt: skip
    plain = training_step(released, stage_of(diffusion_stage, released, data, config))
    yield Case("training step, diffusion", 128, training_step(kit, stage_of(diffusion_stage, kit, data, config)),
               [(1.0, plain)], "the release's score loss on the plain path, without its sampler")  # fmt: skip
    available = torch.tensor([[True, False, False]]).expand(32, 3)
    whole, latents = _joint_step(released, data, available), _latents(released, 32)
    sampler = _silent(lambda: released.recover(latents, available, sampler=replace(RELEASED_SAMPLER, steps=PART_STEPS)))
    note = f"recoverer regression; the release's joint step, two missing: 2 steps of its sampler, 98 from {PART_STEPS}"
    yield Case("training step, adapt", 32, training_step(given, stage_of(adapt_stage, given, data, config)),
               [(1.0, whole), (98 / PART_STEPS, sampler)], note)  # fmt: skip


def _joint_step(model: IMDer, data: MultimodalData, available: Tensor) -> Call:
    """A step of the release's joint training: losses of all parts, with the sampler in the loop."""
    batch, generator = data.train.batch(range(len(available))), torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad])

    def step() -> None:
        model.train()
        optimiser.zero_grad()
        out = model(batch.features, available, with_losses=True, generator=generator)
        loss = (out.prediction - batch.labels).abs().mean() + 0.1 * sum(out.losses.values())
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), 1.0)
        optimiser.step()

    return step


def _data(sizes: Sizes) -> MultimodalData:
    return synthetic({"train": 128, "valid": 32, "test": sizes.part}, steps=STEPS)


def check(sizes: Sizes) -> Iterator[Case]:
    """The posterior check of one pattern."""
    from imder_course.posterior_check import posterior_check  # needs POT, which gpu.py does not

    model, data, draws = _kit(), _data(sizes), 2 * sizes.draws
    latents, n = _latents(model, sizes.part), sizes.part
    row = available_columns([("text",)], model.modalities).expand(n, -1)
    alone = _silent(lambda: model.recover(latents, row, SampleNoise(1, _ids(n), "bench"), draws))
    kit = _silent(lambda: posterior_check(model, data, [("text",)], draws=draws))
    yield Case("posterior check", n, kit, [(1.0, alone)], f"the recovery of its {draws} draws alone")


def evaluation(sizes: Sizes) -> Iterator[Case]:
    """All patterns and rates of a test split, without baselines."""
    model, data, n = _kit(), _data(sizes), sizes.part
    todo = cases(("fixed", "random"), model.modalities)
    masks = (availability(protocol, n, model.modalities, case, seed=1) for protocol, case in todo)
    incomplete = sum(float((~mask.all(dim=1)).double().mean()) for mask in masks)  # cases that need recovery, by share
    latents, row = _latents(model, n), available_columns([("text",)], model.modalities)

    def each_alone() -> None:
        for start in range(0, n, PART):
            part = {m: x[start : start + PART] for m, x in latents.items()}
            ids = _ids(len(part["text"]))
            mask = row.expand(len(ids), -1)
            model.predict(model.recover(part, mask, SampleNoise(1, ids, "bench"), sizes.draws), mask)

    kit = _silent(lambda: evaluate(model, data.test, draws=sizes.draws, baselines=False))
    note = f"each case on its own in batches of {PART}: one is timed, scaled to all {len(todo)}"
    yield Case("evaluation, all patterns and rates", n, kit, [(incomplete, _silent(each_alone))], note)


ROWS: dict[str, Callable[[Sizes], Iterator[Case]]] = {
    "score": score,
    "joint": joint,
    "fusion": fusion,
    "encode": encode,
    "recovery": recovery,
    "training": training,
    "posterior": check,
    "evaluation": evaluation,
}
