"""The training stages of the recipes: trained modules, losses and samples."""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imder_lib.config import TrainConfig
from imder_lib.data.missing import availability, available_columns, patterns, restrict
from imder_lib.data.schema import MultimodalData, Split
from imder_lib.diffusion.noise import SampleNoise, derive_seed
from imder_lib.errors import UserError
from imder_lib.experiment.closed_form import fit_encoders, fit_readout
from imder_lib.experiment.metrics import mean_prediction, task_loss
from imder_lib.experiment.recovered_cache import fill_cache
from imder_lib.experiment.trainer import Stage
from imder_lib.model.bert import BERT_LR, last_hidden
from imder_lib.model.imder import IMDer
from imder_lib.model.recovery import Latents, encode_split

LEAST = 2  # complete samples in training and in validation
LOSS_WEIGHT = 0.1  # of the score and refiner losses, relative to the prediction loss


def _in_batches(size: int, batch_size: int, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """Concatenate ``loss(rows)`` over batches in order: one value per sample, or per batch if ``loss`` is a mean."""
    return torch.cat([loss(rows).cpu().double().flatten() for rows in torch.arange(size).split(batch_size)])


def _observed(model: IMDer, data: MultimodalData, config: TrainConfig) -> dict[str, Tensor]:
    """Modalities of "train" and "valid" that may be read, bool (N, M): those that supervision does not hide.

    A UserError if a split has fewer than LEAST complete samples, or under recipe "released" any incomplete one.
    """
    observed = {k: data.splits[k].given(model.modalities) for k in ("train", "valid")}
    if config.recipe == "released" and not all(x.all() for x in observed.values()):
        raise UserError("recipe 'released' needs samples with all modalities, some lack one: choose recipe 'staged'")
    if config.supervision == "observed":
        kw = {"seed": derive_seed(config.seed, "observed"), "ids": data.train.ids}
        hidden = availability("random", len(data.train), model.modalities, config.rate, **kw)
        observed["train"] = restrict(hidden, observed["train"])
    for name, x in observed.items():
        if (complete := int(x.all(dim=1).sum())) < min(LEAST, len(x)):
            hint = "lower the rate of supervision" if config.supervision == "observed" else "add such samples"
            raise UserError(f"split {name!r}: {complete} samples are complete, training needs {LEAST}: {hint}")
    return {k: x.to(next(model.parameters()).device) for k, x in observed.items()}


def adapts(model: IMDer, data: MultimodalData, config: TrainConfig) -> bool:
    """Whether stage adapt has something to learn, see :func:`adapt_stage`."""
    return not (model.recoverer.posterior and not model.refiners and _observed(model, data, config)["train"].all())


def _latents(model: IMDer, data: MultimodalData, observed: dict[str, Tensor]) -> dict[str, Latents]:
    """Latents of "train" and "valid", zero where ``observed`` does not let them be read.

    The joint net then reads noise around 0 for a modality whose truth is unknown, as in MissDiff (Ouyang et al., 2023).
    """
    out = {}
    for name, seen in observed.items():
        latents = encode_split(model, data.splits[name])
        out[name] = {m: latents[m] * seen[:, c, None, None] for c, m in enumerate(model.modalities)}
    return out


def fusion_stage(model: IMDer, data: MultimodalData, config: TrainConfig, bert: nn.Module | None = None) -> Stage:
    """Train the fusion on complete data, with the encoders if they are "learned" (the release's pretraining).

    With a BERT, its output replaces the text features, and it is trained like the encoders, whatever their kind.
    """
    device = next(model.parameters()).device
    rows_of = {k: x.all(dim=1).nonzero()[:, 0].cpu() for k, x in _observed(model, data, config).items()}
    complete, checked = rows_of["train"], rows_of["valid"]
    fixed = model.config.encoders == "components" and bert is None
    readout = fixed and model.config.fusion.readout and not data.classes
    plain = config.recipe == "released" or bert is not None  # Adam, and the mean of batch means for validation
    settings = config.stage("fusion")
    parts = [model.fusion] if fixed else [model.encoders, model.fusion]

    def initialise() -> None:
        ridge = fit_encoders(model, data, complete)
        if readout:
            x, valid = (model.fusion.averages(encode_split(model, s)).cpu().numpy() for s in (data.train, data.valid))
            a, b = complete.numpy(), checked.numpy()
            fit_readout(model, ridge, (x[a], data.train.labels[a]), (valid[b], data.valid.labels[b]))

    def error(split: Split, rows: Tensor, reduction: str = "mean") -> Tensor:
        batch = split.batch(rows.numpy()).to(device)
        features = batch.features
        if bert is not None:
            features = features | {"text": last_hidden(bert, split.tokens(rows.numpy()).to(device))}
        latents = model.encode(features, batch.lengths)
        latents = {m: x.detach() for m, x in latents.items()} if fixed else latents  # no gradient of fixed encoders
        return task_loss(model.fusion(latents)[0], batch.labels, reduction)

    def validate() -> Tensor:
        reduction = "mean" if plain else "none"
        return _in_batches(len(checked), config.batch_size, lambda rows: error(data.valid, checked[rows], reduction))

    return Stage(
        "fusion",
        replace(settings, weight_decay=0.0) if plain else settings,
        parts if bert is None else [*parts, bert],
        loss=lambda rows, generator, mask: error(data.train, complete[rows]),
        validate=validate,
        size=len(complete),
        cosine=not plain,
        own_lr={} if bert is None else {bert: BERT_LR},
        initialise=initialise if fixed else None,
        keep_initial=readout,
    )


def diffusion_stage(model: IMDer, data: MultimodalData, config: TrainConfig) -> Stage:
    """Train the recoverer with its own loss on latents of fixed encoders, with a random pattern per sample."""
    observed, settings = _observed(model, data, config), config.stage("diffusion")
    latents = _latents(model, data, observed)
    device = next(model.parameters()).device
    table = available_columns(patterns(model.modalities, complete=False), model.modalities).to(device)

    def loss(name: str, rows: Tensor, generator: torch.Generator) -> Tensor:
        pick = torch.randint(len(table), (len(rows),), generator=generator).to(device)
        rows = rows.to(device)
        part, truth = {m: x[rows] for m, x in latents[name].items()}, observed[name][rows]
        available = restrict(table[pick], truth)  # an empty pattern becomes all observed modalities: no loss
        return sum(model.recoverer.losses(part, available, generator, truth).values())

    def validate() -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(config.seed, "diffusion", "valid"))
        return _in_batches(len(data.valid), settings.batch_size, lambda rows: loss("valid", rows, generator))

    def prepare() -> None:
        complete = observed["train"].all(dim=1)
        model.recoverer.prepare({m: x[complete] for m, x in latents["train"].items()})

    return Stage(
        "diffusion",
        settings,
        [model.recoverer],
        loss=lambda rows, generator, mask: loss("train", rows, generator),
        validate=validate,
        size=len(data.train),
        cosine=True,
        early_stop=False,  # averaged weights still improve when the learning rate decreases
        initialise=prepare,
    )


def adapt_stage(model: IMDer, data: MultimodalData, config: TrainConfig) -> Stage:
    """Train refiners and fusion on cached recovered latents; all patterns, with the complete one, are equally likely.

    The loss is that of the mean prediction over draws, as in evaluation. Training on single draws would teach the
    fusion to give noisy modalities too little weight.

    Left out for draws of the posterior without refiners, if all training samples are complete: the expected label
    given what is available is the mean, over draws, of the expected label given everything. (Fusion trained on L1
    gives medians, for which this is an approximation; no gain was ever measured.) Incomplete samples bring the stage
    back: only it reads their labels.
    """
    observed, device = _observed(model, data, config), next(model.parameters()).device
    settings = config.stage("adapt")
    if not (adapts(model, data, config) and settings.epochs):
        return Stage("adapt", settings, [], lambda *_: torch.zeros(()), lambda: torch.zeros(1), size=0)
    latents = _latents(model, data, observed)
    labels, caches, whole = {}, {}, {}
    for name, each in (("train", config.adapt.patterns), ("valid", 0)):  # all patterns in validation: less variance
        ids, seed = data.splits[name].ids, derive_seed(config.seed, "cache", name)
        print(f"cache: recovering {len(ids)} {name} samples", flush=True)
        labels[name] = torch.from_numpy(data.splits[name].labels.copy())[:, None].to(device)
        caches[name] = fill_cache(model, latents[name], ids, each, seed, observed[name])
        # The pattern with all that is observed; of an incomplete sample the first, if that one is not in the cache.
        most = (caches[name].available == observed[name][:, None]).all(dim=2).int().argmax(dim=1)
        whole[name] = torch.where(observed[name].all(dim=1), caches[name].count, most)
    complete = 1 / (2 ** len(model.modalities) - 1)  # probability of the complete pattern

    def losses(name: str, rows: Tensor, pattern: Tensor) -> tuple[Tensor, Tensor | float]:
        """Prediction losses (B,) and refiner loss under patterns (B,) of the cache, of which the last is complete."""
        rows, pattern, cache = rows.to(device), pattern.to(device), caches[name]
        pattern = torch.where(pattern == cache.count, whole[name][rows], pattern)
        available, true = cache.mask(rows, pattern), {m: x[rows] for m, x in latents[name].items()}
        missing, drawn, refine = model.recoverer.missing_rows(available), [], []
        known = {m: i[observed[name][rows][i, c]] for c, (m, i) in enumerate(missing.items()) if m in model.refiners}
        for k in range(1 if available.all() else len(cache.recovered[model.modalities[0]])):
            x = {m: true[m].index_copy(0, i, cache.recovered[m][k, rows[i], pattern[i]]) for m, i in missing.items()}
            drawn.append(x := model.refined(x, available))
            refine.append(sum(F.mse_loss(x[m][i], true[m][i]) for m, i in known.items() if len(i)))
        mean = mean_prediction(torch.stack([model.fusion(x)[0] for x in drawn]))
        return task_loss(mean, labels[name][rows], "none").flatten(), sum(refine) / len(refine)

    def train_loss(rows: Tensor, generator: torch.Generator, mask: None) -> Tensor:
        pattern = torch.randint(caches["train"].count, (len(rows),), generator=generator)
        pattern[torch.rand(len(rows), generator=generator) < complete] = caches["train"].count
        error, refine = losses("train", rows, pattern)
        return error.mean() + (LOSS_WEIGHT * refine if config.supervision == "full" else 0)  # needs targets

    def validate() -> Tensor:
        def error(pattern: int) -> Tensor:
            each = lambda rows: losses("valid", rows, torch.full_like(rows, pattern))[0]  # noqa: E731
            return _in_batches(len(data.valid), 256, each)

        P = caches["valid"].count
        return complete * error(P) + (1 - complete) * sum(error(p) for p in range(P)) / P

    parts, keep = [model.refiners, model.fusion], model.config.fusion.readout
    return Stage("adapt", settings, parts, train_loss, validate, len(data.train), cosine=True, keep_initial=keep)


def joint_stage(model: IMDer, data: MultimodalData, config: TrainConfig) -> Stage:
    """The release's training: recoverer, refiners and fusion jointly, with the sampler in the loop and its masks.

    Unlike the release, the validation mask is the same in all epochs, so validation losses are comparable.
    """
    device, settings = next(model.parameters()).device, config.stage("joint")

    def mask(split: Split, seed: int) -> Tensor:
        kw = {"seed": seed, "batch_size": settings.batch_size}
        return availability("released", len(split), model.modalities, config.rate, **kw).to(device)

    valid_mask = mask(data.valid, derive_seed(config.seed, "joint", "valid"))

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
        settings,
        [model.recoverer, model.refiners, model.fusion],
        loss=loss,
        validate=lambda: _in_batches(len(data.valid), config.batch_size, error),
        size=len(data.train),
        masks=lambda generator: mask(data.train, int(torch.randint(2**62, (), generator=generator))),
        initialise=lambda: model.recoverer.prepare(encode_split(model, data.train)),
    )


RECIPES = {
    "staged": {"fusion": fusion_stage, "diffusion": diffusion_stage, "adapt": adapt_stage},
    "released": {"fusion": fusion_stage, "joint": joint_stage},
}
