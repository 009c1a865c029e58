"""The training stages of the recipes: trained modules, losses and samples."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from imder_lib.config import TrainConfig
from imder_lib.data.missing import availability, available_columns, patterns
from imder_lib.data.schema import MultimodalData
from imder_lib.diffusion.noise import SampleNoise, derive_seed
from imder_lib.errors import UserError
from imder_lib.experiment.closed_form import fit_encoders, fit_readout
from imder_lib.experiment.metrics import mean_prediction, task_loss
from imder_lib.experiment.recovered_cache import RecoveredCache, fill_cache
from imder_lib.experiment.trainer import Stage
from imder_lib.model.imder import IMDer
from imder_lib.model.recovery import Latents, encode_split

NONE_COMPLETE = "no training sample is complete: lower the rate of supervision 'observed'"
MORE_EPOCHS = 3  # at most, of the diffusion on a small data set: every epoch validates and writes a checkpoint
LOSS_WEIGHT = 0.1  # of the score and refiner losses, relative to the prediction loss


def in_batches(size: int, batch_size: int, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Concatenate ``loss(rows)`` over batches in order: one value per sample, or per batch if ``loss`` is a mean."""
    return torch.cat([loss(rows).cpu().double().flatten() for rows in torch.arange(size).split(batch_size)])


def observed_modalities(model: IMDer, data: MultimodalData, config: TrainConfig) -> Tensor:
    """Modalities of the training samples that may be read: bool (N, M), all under supervision "full"."""
    n, split = len(data.train), data.train
    if config.supervision == "full":
        return torch.ones(n, len(model.modalities), dtype=torch.bool)
    return availability(
        "random", n, model.modalities, config.rate, seed=derive_seed(config.seed, "observed"), ids=split.ids
    )


def fusion_stage(model: IMDer, data: MultimodalData, config: TrainConfig) -> Stage:
    """Train the fusion on complete data, with the encoders if they are "learned" (the release's pretraining)."""
    device = next(model.parameters()).device
    complete = observed_modalities(model, data, config).all(dim=1).nonzero()[:, 0]
    if not len(complete):
        raise UserError(NONE_COMPLETE)
    fixed = model.config.encoders == "components"
    readout = fixed and model.config.readout and not data.classes

    def initialise() -> None:
        ridge = fit_encoders(model, data, complete)
        if readout:
            train, valid = (
                (model.fusion.averages(encode_split(model, s)).cpu().numpy(), s.labels)
                for s in (data.train, data.valid)
            )
            fit_readout(model, ridge, tuple(x[complete.numpy()] for x in train), valid)

    def error(split: str, rows: Tensor, reduction: str = "mean") -> Tensor:
        batch = data.splits[split].batch(rows.numpy()).to(device)
        return task_loss(model.fusion(model.encode(batch.features, batch.lengths))[0], batch.labels, reduction)

    each = "mean" if config.recipe == "released" else "none"  # the release averages batch means

    return Stage(
        "fusion",
        [(part, config.lr) for part in ([model.fusion] if fixed else [model.encoders, model.fusion])],
        config.fusion_epochs,
        loss=lambda rows, generator, mask: error("train", complete[rows]),
        validate=lambda: in_batches(len(data.valid), config.batch_size, lambda rows: error("valid", rows, each)),
        size=len(complete),
        batch_size=config.batch_size,
        initialise=initialise if fixed else None,
        keep_initial=readout,
        **_staged(config),
    )


def _staged(config: TrainConfig) -> dict[str, Any]:
    """Options of a stage under recipe staged; the released recipe has no averaging or weight decay."""
    if config.recipe == "released":
        return {}
    return {"cosine": True, "weight_decay": config.weight_decay, "average": config.average}


def diffusion_stage(model: IMDer, data: MultimodalData, config: TrainConfig) -> Stage:
    """Train the recoverer with its own loss on latents of fixed encoders, with a random pattern per sample."""
    latents = {name: encode_split(model, data.splits[name]) for name in ("train", "valid")}
    device = next(model.parameters()).device
    table = available_columns(patterns(model.modalities, complete=False), model.modalities).to(device)
    observed = observed_modalities(model, data, config).to(device)
    complete = observed.all(dim=1)
    if not bool(complete.any()):
        raise UserError(NONE_COMPLETE)

    def loss(split: str, rows: Tensor, generator: torch.Generator) -> Tensor:
        pick = torch.randint(len(table), (len(rows),), generator=generator).to(device)
        rows, available = rows.to(device), table[pick]
        part = {m: x[rows] for m, x in latents[split].items()}
        if split == "valid":
            return sum(model.recoverer.losses(part, available, generator).values())
        truth = observed[rows]
        kept = available & truth  # an empty pattern becomes all observed modalities, and gives no loss
        available = torch.where(kept.any(dim=1, keepdim=True), kept, truth)
        return sum(model.recoverer.losses(part, available, generator, truth).values())

    def validate() -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(config.seed, "diffusion", "valid"))
        return in_batches(len(data.valid), config.batch_size, lambda rows: loss("valid", rows, generator))

    epochs, batches = config.diffusion_epochs, -(-len(data.train) // config.diffusion_batch)
    epochs = min(max(epochs, -(-config.diffusion_steps // batches)), MORE_EPOCHS * epochs)
    return Stage(
        "diffusion",
        [(model.recoverer, config.diffusion_lr)],
        epochs,
        loss=lambda rows, generator, mask: loss("train", rows, generator),
        validate=validate,
        size=len(data.train),
        batch_size=config.diffusion_batch,
        early_stop=False,  # averaged weights still improve when the learning rate decreases
        initialise=lambda: model.recoverer.prepare({m: x[complete] for m, x in latents["train"].items()}),
        **_staged(config) | {"weight_decay": config.diffusion_decay},
    )


def adapt_stage(model: IMDer, data: MultimodalData, config: TrainConfig) -> Stage:
    """Train refiners and fusion on cached recovered latents; all patterns, with the complete one, are equally likely.

    The loss is that of the mean prediction over draws, as in evaluation. Training on single draws would teach the
    fusion to give noisy modalities too little weight.
    """
    device = next(model.parameters()).device
    observed = {"train": observed_modalities(model, data, config).to(device), "valid": None}
    latents = {name: encode_split(model, data.splits[name]) for name in observed}
    full = config.supervision == "full"
    caches, labels = {}, {}
    for name, split in ((k, data.splits[k]) for k in observed):
        labels[name] = torch.from_numpy(split.labels.copy())[:, None].to(device)
        print(f"cache: recovering {len(split)} {name} samples", flush=True)
        kept = None if full else observed[name]
        each = config.cache_patterns if name == "train" else 0  # validation uses all patterns, for less variance
        seed = derive_seed(config.seed, "cache", name)
        caches[name] = fill_cache(model, latents[name], split.ids, each, seed, kept)
    complete = 1 / (2 ** len(model.modalities) - 1)  # probability of the complete pattern

    def losses(name: str, rows: Tensor, pattern: Tensor) -> tuple[Tensor, Tensor]:
        """Prediction losses (B,) and refiner loss; ``pattern`` (B,) is an index into the cache, -1: complete."""
        rows, pattern, cache = rows.to(device), pattern.to(device), caches[name]
        if observed[name] is not None:
            pattern = torch.where((pattern < 0) & ~observed[name][rows].all(dim=1), 0, pattern)  # incomplete samples
        true = {m: x[rows] for m, x in latents[name].items()}
        draws = cache.draws if bool((pattern >= 0).any()) else 1
        filled, refine = zip(*(_refined(model, true, cache, rows, pattern, k) for k in range(draws)), strict=True)
        mean = mean_prediction(torch.stack([model.fusion(x)[0] for x in filled]))
        return task_loss(mean, labels[name][rows], "none").flatten(), sum(refine) / draws

    def train_loss(rows: Tensor, generator: torch.Generator, mask: None) -> Tensor:
        pattern = torch.randint(caches["train"].patterns, (len(rows),), generator=generator)
        pattern[torch.rand(len(rows), generator=generator) < complete] = -1
        error, refine = losses("train", rows, pattern)
        return error.mean() + LOSS_WEIGHT * refine if full else error.mean()  # without targets for the refiners

    def validate() -> Tensor:
        P = caches["valid"].patterns
        parts = [
            in_batches(len(data.valid), 256, lambda rows, p=p: losses("valid", rows, torch.full((len(rows),), p))[0])
            for p in range(-1, P)
        ]
        return complete * parts[0] + (1 - complete) * sum(parts[1:]) / P

    return Stage(
        "adapt",
        [(model.refiners, config.adapt_lr), (model.fusion, config.adapt_lr)],
        config.adapt_epochs,
        loss=train_loss,
        validate=validate,
        size=len(data.train),
        batch_size=config.batch_size,
        keep_initial=model.config.readout,
        **_staged(config),
    )


def _refined(
    model: IMDer, true: Latents, cache: RecoveredCache, rows: Tensor, pattern: Tensor, draw: int
) -> tuple[Latents, Tensor]:
    """Latents with a refined draw of the cache where missing, and the sum of the refiners' MSE."""
    available = cache.available[rows, pattern.clamp(min=0)].clone()  # (B, M)
    available[pattern < 0] = True
    filled = dict(true)
    missing = model.recoverer.missing_rows(available)
    for m, i in missing.items():
        filled[m] = true[m].index_copy(0, i, cache.recovered[m][draw, rows[i], pattern[i]])
    filled, loss = model.refined(filled, available), true[model.modalities[0]].new_zeros(())
    for m, i in missing.items():
        if len(i) and m in model.refiners:
            loss = loss + F.mse_loss(filled[m][i], true[m][i])
    return filled, loss


def joint_stage(model: IMDer, data: MultimodalData, config: TrainConfig) -> Stage:
    """The release's training: recoverer, refiners and fusion jointly, with the sampler in the loop and its masks.

    Unlike the release, the validation mask is the same in all epochs, so validation losses are comparable.
    """
    device = next(model.parameters()).device

    def mask(split: str, seed: int) -> Tensor:
        n = len(data.splits[split])
        kw = {"seed": seed, "batch_size": config.batch_size}
        return availability("released", n, model.modalities, config.rate, **kw).to(device)

    valid_mask = mask("valid", derive_seed(config.seed, "joint", "valid"))

    def loss(rows: Tensor, generator: torch.Generator, available: Tensor) -> Tensor:
        batch = data.train.batch(rows.numpy()).to(device)
        out = model(batch.features, available, with_losses=True, generator=generator, lengths=batch.lengths)
        return task_loss(out.prediction, batch.labels) + LOSS_WEIGHT * sum(out.losses.values())

    def error(rows: Tensor) -> Tensor:
        batch = data.valid.batch(rows.numpy()).to(device)
        noise = SampleNoise(derive_seed(config.seed, "joint"), batch.ids, "valid")
        out = model(batch.features, valid_mask[rows], generator=noise, lengths=batch.lengths)
        return task_loss(out.prediction, batch.labels)

    return Stage(
        "joint",
        [(part, config.lr) for part in (model.recoverer, model.refiners, model.fusion)],
        config.joint_epochs,
        loss=loss,
        validate=lambda: in_batches(len(data.valid), config.batch_size, error),
        size=len(data.train),
        batch_size=config.batch_size,
        masks=lambda generator: mask("train", int(torch.randint(2**62, (), generator=generator))),
    )
