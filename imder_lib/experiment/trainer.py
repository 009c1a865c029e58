"""The training loop of every stage: epochs, validation, early stop, learning rate, checkpoint, resume."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from tqdm import tqdm

from imder_lib.config import TrainConfig
from imder_lib.diffusion.noise import derive_seed, seeded
from imder_lib.experiment.checkpoint import read_checkpoint, write_checkpoint, write_text

WARM_UP = 100  # steps, and at most a tenth of all


@dataclass
class Stage:
    """One stage of a recipe.

    Attributes:
        name: stands in the history and the checkpoint.
        parts: modules that learn, with their learning rates.
        epochs: at most; 0 skips the stage.
        loss: (rows, generator, available) -> scalar; ``rows`` are of the training split.
        validate: () -> (n,) losses of validation samples or batches; their noise is the same every epoch.
        size: number of training samples.
        batch_size: of the training samples.
        masks: generator -> bool (size, M), drawn every epoch; ``loss`` gets the rows of its batch, in the batches'
            order. None: ``loss`` gets None.
        cosine: the learning rate rises, then falls to 0 on a cosine; else it halves on a plateau.
        early_stop: end after the configuration's number of epochs without a better validation loss.
        weight_decay: of AdamW; plain Adam at 0.
        average: weights averaged exponentially over this share of all steps are validated and kept; 0: the weights are.
        initialise: sets weights in closed form, before the first epoch.
        keep_initial: the initial weights are validated too, as epoch 0, and stay unless an epoch is lower by more than
            two standard errors of the paired difference: less can be chance.
    """

    name: str
    parts: list[tuple[nn.Module, float]]
    epochs: int
    loss: Callable[[Tensor, torch.Generator, Tensor | None], Tensor]
    validate: Callable[[], Tensor]
    size: int
    batch_size: int
    masks: Callable[[torch.Generator], Tensor] | None = None
    cosine: bool = False
    early_stop: bool = True
    weight_decay: float = 0.0
    average: float = 0.0
    initialise: Callable[[], None] | None = None
    keep_initial: bool = False

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        return self.epochs * -(-self.size // self.batch_size)

    def groups(self) -> list[dict[str, Any]]:
        """What learns, by learning rate, as an optimiser takes it."""
        parts = (([p for p in part.parameters() if p.requires_grad], lr) for part, lr in self.parts)
        return [{"params": parameters, "lr": lr} for parameters, lr in parts if parameters]

    def parameters(self) -> list[nn.Parameter]:
        return [p for group in self.groups() for p in group["params"]]


class Trainer:
    """Runs stages on one model; after every epoch the run can be killed and resumed to the same numbers.

    All randomness of an epoch comes from (seed, stage, epoch), so no generator state needs saving.

    Attributes:
        done: names of finished stages.
        history: a row for each epoch of each stage.
        cut: state of the stage that was cut off; empty between stages.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, folder: Path, resume: bool) -> None:
        self.model, self.config, self.folder = model, config, folder
        state = read_checkpoint(folder, model) if resume else {"config": asdict(config), "done": [], "history": []}
        self.trained_with, self.done, self.history = state["config"], state["done"], state["history"]
        self.cut: dict[str, Any] = state.get("stage", {})

    def run(self, stage: Stage) -> None:
        """Train one stage to its end and leave the best epoch's weights in the model; a finished stage is skipped."""
        if stage.name in self.done:
            return
        parameters, now = stage.parameters(), self.cut
        if not now and stage.initialise and stage.epochs:
            stage.initialise()
        if parameters and stage.epochs:
            optimiser = torch.optim.AdamW(stage.groups(), weight_decay=stage.weight_decay)
            schedule = self._schedule(stage, optimiser)
            if now:
                optimiser.load_state_dict(now["optimiser"])
                schedule.load_state_dict(now["schedule"])
                now = {k: _like(v, parameters) if k in ("kept", "average") else v for k, v in now.items()}
            else:
                now = self._begin(stage, parameters)
            while now["epoch"] < stage.epochs and not (stage.early_stop and self._stale(now)):
                self._epoch(stage, now, optimiser, schedule, parameters)
                self._save(now | {"optimiser": optimiser.state_dict(), "schedule": schedule.state_dict()})
            _set(parameters, now["kept"])
        self.done.append(stage.name)
        self._save({})

    def _schedule(self, stage: Stage, optimiser: torch.optim.Optimizer) -> LambdaLR | ReduceLROnPlateau:
        if not stage.cosine:
            return ReduceLROnPlateau(optimiser, factor=0.5, patience=self.config.patience)
        rise = min(WARM_UP, 1 + stage.steps // 10)
        return LambdaLR(
            optimiser, lambda step: min(1.0, (step + 1) / rise) * (1 + math.cos(math.pi * step / stage.steps)) / 2
        )

    def _begin(self, stage: Stage, parameters: list[nn.Parameter]) -> dict[str, Any]:
        """State of a stage before its first epoch."""
        kept, average = _copies(parameters), _copies(parameters) if stage.average else []
        now = {"epoch": 0, "best": math.inf, "best_epoch": 0, "initial": [], "kept": kept, "average": average}
        if stage.keep_initial:
            losses = self._validate(stage, parameters, kept)
            now |= {"best": float(losses.mean()), "initial": losses.tolist()}
            row = {"train": None, "valid": now["best"], "lr": 0.0, "kept": True, "seconds": 0.0}
            self.history.append({"stage": stage.name, "epoch": 0, **row})
        return now

    def _stale(self, now: dict[str, Any]) -> bool:
        return now["epoch"] - now["best_epoch"] >= self.config.early_stop

    def _epoch(
        self,
        stage: Stage,
        now: dict[str, Any],
        optimiser: torch.optim.Optimizer,
        schedule: LambdaLR | ReduceLROnPlateau,
        parameters: list[nn.Parameter],
    ) -> None:
        """Train one epoch, validate, and keep the weights if they are the best; updates ``now`` and the history."""
        started = time.perf_counter()
        now["epoch"] += 1
        lr = optimiser.param_groups[0]["lr"]
        train = self._train(stage, now, optimiser, schedule, parameters)
        values = now["average"] or parameters
        losses = self._validate(stage, parameters, values)
        valid = float(losses.mean())
        if not stage.cosine:
            schedule.step(valid)
        better = valid < now["best"] and _clearly_lower(losses, now["initial"])
        if better:
            now |= {"best": valid, "best_epoch": now["epoch"], "kept": _copies(values)}
        seconds = round(time.perf_counter() - started, 2)
        row = {"train": train, "valid": valid, "lr": lr, "kept": better, "seconds": seconds}
        self.history.append({"stage": stage.name, "epoch": now["epoch"], **row})
        print(f"{stage.name} epoch {now['epoch']}/{stage.epochs}: train {train:.4f}, valid {valid:.4f}, lr {lr:.2g}, "
              f"{seconds:.1f} s", flush=True)  # fmt: skip

    def _train(
        self,
        stage: Stage,
        now: dict[str, Any],
        optimiser: torch.optim.Optimizer,
        schedule: LambdaLR | ReduceLROnPlateau,
        parameters: list[nn.Parameter],
    ) -> float:
        """One pass over the training samples; returns the mean loss."""
        self.model.eval()  # what does not learn behaves as it will later (no dropout in a frozen part)
        for part, _ in stage.parts:
            part.train()
        epoch, total = now["epoch"], 0.0
        generator = torch.Generator().manual_seed(derive_seed(self.config.seed, stage.name, epoch))
        batches = torch.randperm(stage.size, generator=generator).split(stage.batch_size)
        masks = stage.masks(generator).split(stage.batch_size) if stage.masks else [None] * len(batches)
        horizon, step = 1 + stage.average * stage.steps, (epoch - 1) * len(batches)
        with self._seeded(stage.name, epoch):  # dropout draws from torch's default generator
            shown = tqdm(batches, stage.name, leave=False, disable=not sys.stderr.isatty())
            for rows, mask in zip(shown, masks, strict=True):
                loss = stage.loss(rows, generator, mask)
                optimiser.zero_grad()
                if loss.requires_grad:  # a batch that misses nothing has no diffusion loss
                    loss.backward()
                    nn.utils.clip_grad_value_(parameters, self.config.clip)
                    optimiser.step()
                if stage.cosine:
                    schedule.step()
                step += 1
                for a, p in zip(now["average"], parameters, strict=False):
                    a.lerp_(p.detach(), max(1 / horizon, 9 / (9 + step)))
                total += loss.item() * len(rows)
        return total / stage.size

    def _validate(self, stage: Stage, parameters: list[nn.Parameter], values: list[Tensor]) -> Tensor:
        """Validation losses with these values in the parameters."""
        self.model.eval()
        with torch.no_grad(), self._seeded(stage.name, "valid"), _holding(parameters, values):
            return stage.validate()

    def _seeded(self, *parts: object) -> AbstractContextManager[None]:
        return seeded(derive_seed(self.config.seed, "default", *parts))

    def _save(self, cut: dict[str, Any]) -> None:
        self.cut = cut
        state = {"config": self.trained_with, "done": self.done, "history": self.history, "stage": cut}
        write_checkpoint(self.folder, state | {"model": self.model.state_dict()})
        write_text(self.folder / "history.csv", pd.DataFrame(self.history).to_csv(index=False))


def _clearly_lower(losses: Tensor, initial: list[float]) -> bool:
    """Whether losses lie below the initial weights' by more than two standard errors of the difference."""
    gain = torch.tensor(initial, dtype=torch.float64) - losses if initial else None
    return gain is None or bool(gain.mean() > 2 * gain.std() / len(gain) ** 0.5)


def _copies(tensors: list[Tensor]) -> list[Tensor]:
    return [t.detach().clone() for t in tensors]


def _like(tensors: list[Tensor], parameters: list[nn.Parameter]) -> list[Tensor]:
    """Tensors on the parameters' devices."""
    return [t.to(p.device) for t, p in zip(tensors, parameters, strict=False)]


@torch.no_grad()
def _set(parameters: list[nn.Parameter], values: list[Tensor]) -> None:
    for p, value in zip(parameters, values, strict=True):
        p.copy_(value)


@contextmanager
def _holding(parameters: list[nn.Parameter], values: list[Tensor]) -> Iterator[None]:
    """Parameters hold other values inside the block."""
    own = _copies(parameters)
    _set(parameters, values)
    try:
        yield
    finally:
        _set(parameters, own)
