"""The training loop of all stages: epochs, validation, early stopping, learning rate, checkpoints, resuming."""

import math
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
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
from imder_lib.errors import UserError
from imder_lib.experiment.checkpoint import read_checkpoint, write_checkpoint, write_text

WARM_UP = 100  # steps, or a tenth of all steps if that is fewer


@dataclass
class Stage:
    """One stage of a recipe.

    Attributes:
        name: name in the history and the checkpoint.
        parts: trained modules, with their learning rates.
        epochs: maximum number; 0 skips the stage.
        loss: (rows, generator, available) -> scalar; ``rows`` are indices of training samples.
        validate: () -> (n,) losses of validation samples or batches, with the same noise in all epochs.
        size: number of training samples.
        batch_size: training samples per batch.
        masks: generator -> bool (size, M), called once per epoch and split into batches for ``loss``; None: ``loss``
            gets None.
        cosine: learning rate with warm-up and cosine decay to 0; False: it halves on a plateau.
        early_stop: stop after config.early_stop epochs without a lower validation loss.
        weight_decay: of AdamW; 0: Adam.
        average: share of all steps over which weights are exponentially averaged; the averages are validated and kept.
            0: no averaging.
        initialise: sets weights in closed form before the first epoch.
        keep_initial: validate the initial weights as epoch 0, and keep them unless the loss of an epoch is lower by
            more than two standard errors of the paired difference.
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
        """Number of optimiser steps in all epochs."""
        return self.epochs * -(-self.size // self.batch_size)

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the optimiser."""
        parts = (([p for p in part.parameters() if p.requires_grad], lr) for part, lr in self.parts)
        return [{"params": parameters, "lr": lr} for parameters, lr in parts if parameters]

    def parameters(self) -> list[nn.Parameter]:
        return [p for group in self.groups() for p in group["params"]]


class Learner:
    """Trained parameters of a stage, their optimiser, and the progress of training.

    Attributes:
        kept: parameters of the best epoch.
        average: averaged parameters; empty without averaging.
        initial: validation losses of the initial weights, if the stage may keep them.
    """

    def __init__(self, stage: Stage, patience: int) -> None:
        self.parameters = stage.parameters()
        self.optimiser = torch.optim.AdamW(stage.groups(), weight_decay=stage.weight_decay)
        rise = min(WARM_UP, 1 + stage.steps // 10)
        self.cosine = stage.cosine and LambdaLR(
            self.optimiser, lambda i: min(1.0, (i + 1) / rise) * (1 + math.cos(math.pi * i / stage.steps)) / 2
        )
        self.plateau = None if stage.cosine else ReduceLROnPlateau(self.optimiser, factor=0.5, patience=patience)
        self.epoch, self.best_epoch, self.best = 0, 0, math.inf
        self.kept, self.average = _copies(self.parameters), _copies(self.parameters) if stage.average else []
        self.initial: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        plain = {k: getattr(self, k) for k in ("epoch", "best_epoch", "best", "kept", "average", "initial")}
        schedule = self.cosine or self.plateau
        return plain | {"optimiser": self.optimiser.state_dict(), "schedule": schedule.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(state["optimiser"])
        (self.cosine or self.plateau).load_state_dict(state["schedule"])
        _set(self.kept, state["kept"])
        _set(self.average, state["average"])
        for k in ("epoch", "best_epoch", "best", "initial"):
            setattr(self, k, state[k])


class Trainer:
    """Runs stages on one model. A run that is killed after an epoch can be resumed with the same results.

    Random numbers of an epoch depend on (seed, stage, epoch) only, so no generator state is saved.

    Attributes:
        done: names of finished stages.
        history: one row per stage and epoch.
        cut: state of the interrupted stage; empty between stages.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, folder: Path, resume: bool) -> None:
        self.model, self.config, self.folder = model, config, folder
        state = read_checkpoint(folder, model) if resume else {"config": asdict(config), "done": [], "history": []}
        self.trained_with, self.done, self.history = state["config"], state["done"], state["history"]
        self.cut: dict[str, Any] = state.get("stage", {})

    def run(self, stage: Stage) -> None:
        """Train one stage and set the weights of its best epoch in the model. Finished stages are skipped."""
        if stage.name in self.done:
            return
        if not self.cut and stage.initialise and stage.epochs:
            stage.initialise()
        if stage.parameters() and stage.epochs:
            learner = Learner(stage, self.config.patience)
            if self.cut:
                learner.load_state_dict(self.cut)
            elif stage.keep_initial:
                losses = self._validate(stage, learner)
                learner.best, learner.initial = float(losses.mean()), losses.tolist()
                row = {"train": None, "valid": learner.best, "lr": 0.0, "kept": True, "seconds": 0.0}
                self.history.append({"stage": stage.name, "epoch": 0, **row})
            patience = self.config.early_stop if stage.early_stop else math.inf
            while learner.epoch < stage.epochs and learner.epoch - learner.best_epoch < patience:
                self._epoch(stage, learner)
                self._save(learner.state_dict())
            _set(learner.parameters, learner.kept)
        self.done.append(stage.name)
        self._save({})

    def _epoch(self, stage: Stage, learner: Learner) -> None:
        """Train one epoch, validate, and store the weights if they are the best."""
        started, lr = time.perf_counter(), learner.optimiser.param_groups[0]["lr"]
        learner.epoch += 1
        train = self._train(stage, learner)
        losses = self._validate(stage, learner)
        valid = float(losses.mean())
        if learner.plateau:
            learner.plateau.step(valid)
        better = valid < learner.best and _clearly_lower(losses, learner.initial)
        if better:
            learner.best, learner.best_epoch = valid, learner.epoch
            learner.kept = _copies(learner.average or learner.parameters)
        seconds = round(time.perf_counter() - started, 2)
        row = {"train": train, "valid": valid, "lr": lr, "kept": better, "seconds": seconds}
        self.history.append({"stage": stage.name, "epoch": learner.epoch, **row})
        print(f"{stage.name} epoch {learner.epoch}/{stage.epochs}: train {train:.4f}, valid {valid:.4f}, lr {lr:.2g}, "
              f"{seconds:.1f} s", flush=True)  # fmt: skip

    def _train(self, stage: Stage, learner: Learner) -> float:
        """Train on all samples once; return the mean loss."""
        self.model.eval()  # no dropout in modules that are not trained
        for part, _ in stage.parts:
            part.train()
        generator = torch.Generator().manual_seed(derive_seed(self.config.seed, stage.name, learner.epoch))
        batches = torch.randperm(stage.size, generator=generator).split(stage.batch_size)
        masks = stage.masks(generator).split(stage.batch_size) if stage.masks else [None] * len(batches)
        horizon, step, total = 1 + stage.average * stage.steps, (learner.epoch - 1) * len(batches), 0.0
        with self._seeded(stage.name, learner.epoch):  # dropout uses torch's default generator
            shown = tqdm(batches, stage.name, leave=False, disable=not sys.stderr.isatty())
            for rows, mask in zip(shown, masks, strict=True):
                loss = stage.loss(rows, generator, mask)
                value = loss.item()
                if not math.isfinite(value):
                    first = ", ".join(map(str, rows[:3].tolist()))
                    raise UserError(
                        f"stage {stage.name}, epoch {learner.epoch}: the loss is {value} on training samples {first}, "
                        "...: look for extreme numbers there (imder check), or lower the learning rate"
                    )
                learner.optimiser.zero_grad()
                if loss.requires_grad:  # a complete batch has no diffusion loss
                    loss.backward()
                    nn.utils.clip_grad_value_(learner.parameters, self.config.clip)
                    learner.optimiser.step()
                if learner.cosine:
                    learner.cosine.step()
                step += 1
                for a, p in zip(learner.average, learner.parameters, strict=False):
                    a.lerp_(p.detach(), max(1 / horizon, 9 / (9 + step)))
                total += value * len(rows)
        return total / stage.size

    def _validate(self, stage: Stage, learner: Learner) -> Tensor:
        """Validation losses of the averaged weights, or of the weights without averaging."""
        self.model.eval()
        current = _copies(learner.parameters)
        _set(learner.parameters, learner.average or current)
        try:
            with torch.no_grad(), self._seeded(stage.name, "valid"):
                losses = stage.validate()
        finally:
            _set(learner.parameters, current)
        if not torch.isfinite(losses).all():
            row = int((~torch.isfinite(losses)).nonzero()[0])
            raise UserError(
                f"stage {stage.name}, epoch {learner.epoch}: the validation loss number {row} of {len(losses)} is not "
                "finite: look for extreme numbers in the validation split (imder check)"
            )
        return losses

    def _seeded(self, *parts: object) -> AbstractContextManager[None]:
        return seeded(derive_seed(self.config.seed, "default", *parts))

    def _save(self, cut: dict[str, Any]) -> None:
        self.cut = cut
        state = {"config": self.trained_with, "done": self.done, "history": self.history, "stage": cut}
        write_checkpoint(self.folder, state | {"model": self.model.state_dict()})
        write_text(self.folder / "history.csv", pd.DataFrame(self.history).to_csv(index=False))


def _clearly_lower(losses: Tensor, initial: list[float]) -> bool:
    """Whether losses are below the initial ones by more than two standard errors of the paired difference."""
    gain = torch.tensor(initial, dtype=torch.float64) - losses if initial else None
    return gain is None or bool(gain.mean() > 2 * gain.std() / len(gain) ** 0.5)


def _copies(tensors: list[Tensor]) -> list[Tensor]:
    return [t.detach().clone() for t in tensors]


@torch.no_grad()
def _set(tensors: list[Tensor], values: list[Tensor]) -> None:
    for t, value in zip(tensors, values, strict=True):
        t.copy_(value)
