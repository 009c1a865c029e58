"""fit: the two recipes, each a list of stages."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from imder_lib.config import TrainConfig
from imder_lib.data.missing import availability, available_columns, patterns
from imder_lib.data.schema import MultimodalData
from imder_lib.diffusion.noise import SampleNoise, derive_seed
from imder_lib.errors import UserError
from imder_lib.experiment.bank import Bank, fill_bank
from imder_lib.experiment.checkpoint import STATE, save_model
from imder_lib.experiment.trainer import Stage, Trainer
from imder_lib.model.imder import IMDer
from imder_lib.model.recovery import Latents, encode_split

LOSS_WEIGHT = 0.1  # of the score and refiner losses beside the L1 of the prediction (section 7)
RECIPES = {"staged": ("fusion", "score", "refine"), "released": ("fusion", "joint")}


@dataclass
class FitResult:
    """What training leaves.

    Attributes:
        model: with the weights that validation picked, in eval mode.
        history: a row for each stage and epoch: train and valid loss, lr, seconds.
        path: of model.safetensors (None after ``until``).
        seconds: of this call.
    """

    model: IMDer
    history: pd.DataFrame
    path: Path | None
    seconds: float


def fit(
    model: IMDer,
    data: MultimodalData,
    config: TrainConfig,
    out_dir: str | Path,
    *,
    resume: bool = False,
    until: str | None = None,
) -> FitResult:
    """Train on the training split, pick on the validation split; the test split is never read.

    Args:
        model: changed in place; its device is the device of training.
        data: of the model's modalities and widths.
        config: recipe and hyper-parameters.
        out_dir: state.json, step-*.safetensors, history.csv; at the end model.safetensors and model.json.
        resume: go on from the last finished epoch in ``out_dir``; starts anew if there is none.
        until: stop after this stage.

    Raises:
        UserError: data that do not fit the model, a folder in use, another configuration than the one resumed.
    """
    started = time.perf_counter()
    folder = Path(out_dir)
    if data.widths != dict(model.config.widths):
        raise UserError(f"the data's widths {data.widths} are not the model's {dict(model.config.widths)}")
    names = RECIPES[config.recipe]
    if until is not None and until not in names:
        raise UserError(f"until={until!r}: expected a stage of recipe {config.recipe!r}, one of {names}")
    there = (folder / STATE).exists()
    if there and not resume:
        raise UserError(f"{folder} holds a training run: pass resume=True, or name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from None
    trainer = Trainer(model, config, folder, resume=there)
    if trainer.progress.config != asdict(config):
        old = trainer.progress.config
        changed = sorted(k for k in old.keys() | asdict(config).keys() if old.get(k) != asdict(config).get(k))
        raise UserError(f"{folder} was trained with other settings ({', '.join(changed)}): name another folder")
    stages = {"fusion": fusion_stage, "score": score_stage, "refine": refine_stage, "joint": joint_stage}
    for name in names:
        if name not in trainer.progress.done:
            trainer.run(stages[name](model, data, config))
        if name == until:
            break
    finished = set(names) <= set(trainer.progress.done)
    path = folder / "model.safetensors" if finished else None
    if path is not None:
        save_model(model, path)
    history = pd.DataFrame(trainer.progress.history)
    return FitResult(model.eval(), history, path, time.perf_counter() - started)


def mean_of_batches(size: int, batch_size: int, loss: Callable[[Tensor], Tensor]) -> float:
    """Mean of batch means of ``loss(rows)`` over rows in order."""
    values = [float(loss(rows)) for rows in torch.arange(size).split(batch_size)]
    return sum(values) / len(values)


def fusion_stage(model: IMDer, data: MultimodalData, config: TrainConfig) -> Stage:
    """Encoders and fusion on complete data, L1. The release's pretraining, and the first stage of "staged"."""
    device = next(model.parameters()).device

    def l1(split: str, rows: Tensor) -> Tensor:
        batch = data.splits[split].batch(rows.numpy()).to(device)
        return F.l1_loss(model.fusion(model.encode(batch.features, batch.lengths))[0], batch.labels)

    return Stage(
        "fusion",
        [model.encoders, model.fusion],
        config.fusion_epochs,
        loss=lambda rows, generator: l1("train", rows),
        validate=lambda: mean_of_batches(len(data.valid), config.batch_size, lambda rows: l1("valid", rows)),
        size=len(data.train),
        lr=config.lr,
    )


def score_stage(model: IMDer, data: MultimodalData, config: TrainConfig) -> Stage:
    """Score nets and condition convolutions on frozen latents, by score matching alone; a random pattern a sample."""
    latents = {name: encode_split(model, data.splits[name]) for name in ("train", "valid")}
    device = next(model.parameters()).device
    table = available_columns(patterns(model.modalities, complete=False), model.modalities).to(device)

    def loss(split: str, rows: Tensor, generator: torch.Generator) -> Tensor:
        pick = torch.randint(len(table), (len(rows),), generator=generator)
        here = {m: x[rows.to(device)] for m, x in latents[split].items()}
        return sum(model.score_losses(here, table[pick.to(device)], generator).values())

    def validate() -> float:
        generator = torch.Generator().manual_seed(derive_seed(config.seed, "score", "valid"))
        return mean_of_batches(len(data.valid), config.batch_size, lambda rows: loss("valid", rows, generator))

    return Stage(
        "score",
        [model.score_nets, model.conditions],
        config.score_epochs,
        loss=lambda rows, generator: loss("train", rows, generator),
        validate=validate,
        size=len(data.train),
        lr=config.lr,
    )


def refine_stage(model: IMDer, data: MultimodalData, config: TrainConfig) -> Stage:
    """Refiners and fusion on banks of recovered latents; every pattern, the complete one too, is equally likely."""
    device = next(model.parameters()).device
    latents, banks, labels = {}, {}, {}
    for name in ("train", "valid"):
        split = data.splits[name]
        latents[name] = encode_split(model, split)
        labels[name] = torch.from_numpy(split.labels.copy())[:, None].to(device)
        print(f"bank: recovering {len(split)} {name} samples, {config.bank_steps} network calls each", flush=True)
        seed = derive_seed(config.seed, "bank", name)
        banks[name] = fill_bank(model, latents[name], split.ids, config.bank_draws, config.bank_steps, seed)
    complete = 1 / (2 ** len(model.modalities) - 1)  # the complete pattern's share

    def losses(name: str, rows: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
        """L1 and refiner loss; ``draw`` (B,) picks from the bank, -1 is the complete pattern."""
        rows, draw = rows.to(device), draw.to(device)
        filled, refine = _refined(model, {m: x[rows] for m, x in latents[name].items()}, banks[name], rows, draw)
        return F.l1_loss(model.fusion(filled)[0], labels[name][rows]), refine

    def train_loss(rows: Tensor, generator: torch.Generator) -> Tensor:
        draw = torch.randint(banks["train"].draws, (len(rows),), generator=generator)
        draw[torch.rand(len(rows), generator=generator) < complete] = -1
        l1, refine = losses("train", rows, draw)
        return l1 + LOSS_WEIGHT * refine

    def validate() -> float:
        K = banks["valid"].draws
        parts = [
            mean_of_batches(
                len(data.valid), 256, lambda rows, k=k: losses("valid", rows, torch.full((len(rows),), k))[0]
            )
            for k in range(-1, K)
        ]
        return complete * parts[0] + (1 - complete) * sum(parts[1:]) / K

    parts = [model.refiners, model.fusion]
    return Stage("refine", parts, config.refine_epochs, train_loss, validate, len(data.train), config.refine_lr)


def _refined(model: IMDer, true: Latents, bank: Bank, rows: Tensor, draw: Tensor) -> tuple[Latents, Tensor]:
    """Latents with refined bank entries where missing, and the sum of the refiners' MSE to the true latents."""
    available = bank.available[rows, draw.clamp(min=0)].clone()  # (B, M)
    available[draw < 0] = True
    filled, loss = dict(true), true[model.modalities[0]].new_zeros(())
    for m, gone in model.missing_rows(available).items():
        if len(gone):
            better = model.refine(m, bank.recovered[m][rows[gone], draw[gone]])
            loss = loss + F.mse_loss(better, true[m][gone])
            filled[m] = true[m].index_copy(0, gone, better)
    return filled, loss


def joint_stage(model: IMDer, data: MultimodalData, config: TrainConfig) -> Stage:
    """The release's training: everything but the encoders jointly, the sampler in the loop, masks by its protocol.

    Its validation mask is redrawn every epoch; ours is fixed, so that the best epoch means the best epoch.
    """
    device = next(model.parameters()).device
    masks: dict[str, Tensor] = {}

    def mask(split: str, seed: int) -> Tensor:
        n = len(data.splits[split])
        kw = {"seed": seed, "batch_size": config.batch_size}
        return availability("released", n, model.modalities, config.rate, **kw).to(device)

    masks["valid"] = mask("valid", derive_seed(config.seed, "joint", "valid"))
    state = {"place": 0}

    def loss(rows: Tensor, generator: torch.Generator) -> Tensor:
        if state["place"] == 0:  # a new epoch: masked batches come first, in the order of training
            masks["train"] = mask("train", int(torch.randint(2**62, (), generator=generator)))
        place = state["place"]
        available = masks["train"][place : place + len(rows)]
        state["place"] = (place + len(rows)) % len(data.train)
        batch = data.train.batch(rows.numpy()).to(device)
        out = model(batch.features, available, with_losses=True, generator=generator, lengths=batch.lengths)
        return F.l1_loss(out.prediction, batch.labels) + LOSS_WEIGHT * sum(out.losses.values())

    def l1(rows: Tensor) -> Tensor:
        batch = data.valid.batch(rows.numpy()).to(device)
        noise = SampleNoise(derive_seed(config.seed, "joint"), batch.ids, "valid")
        out = model(batch.features, masks["valid"][rows], generator=noise, lengths=batch.lengths)
        return F.l1_loss(out.prediction, batch.labels)

    return Stage(
        "joint",
        [model.score_nets, model.refiners, model.conditions, model.fusion],
        config.joint_epochs,
        loss=loss,
        validate=lambda: mean_of_batches(len(data.valid), config.batch_size, l1),
        size=len(data.train),
        lr=config.lr,
    )
