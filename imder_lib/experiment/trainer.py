"""The training loop of all stages: epochs, validation, early stopping, learning rate, checkpoints, resuming."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from tqdm import tqdm

from imder_lib.config import StageConfig, TrainConfig
from imder_lib.diffusion.noise import derive_seed, seeded
from imder_lib.errors import UserError, unwritable
from imder_lib.experiment.checkpoint import CHECKPOINT, check_like, read_checkpoint, write_checkpoint, write_text
from imder_lib.experiment.parallel import progress_bar

WARM_UP = 100  # steps, or a tenth of all steps if that is fewer
STATEFUL = ("optimiser", "schedule")
SAVED = ("epoch", "best_epoch", "best", "kept", "average", "initial")  # of a Learner, in the checkpoint


@dataclass
class Stage:
    """One stage of a recipe: what is trained, on which loss, and how."""

    name: str  # in the history and the checkpoint
    settings: StageConfig
    parts: Sequence[nn.Module]  # trained modules
    loss: Callable[[Tensor, torch.Generator, Tensor | None], Tensor]  # (rows (B,), generator, masks (B, M)) -> scalar
    validate: Callable[[], Tensor]  # losses (n,) of samples or batches, with the same noise in all epochs
    size: int  # number of training samples, whose indices are the rows
    masks: Callable[[torch.Generator], Tensor] | None = None  # bool (size, M), called once per epoch
    cosine: bool = False  # warm-up, cosine decay to 0 and averaged weights; False: the rate halves on a plateau
    early_stop: bool = True  # after config.early_stop epochs without a lower validation loss
    own_lr: Mapping[nn.Module, float] = field(default_factory=dict)  # of parts whose learning rate is not settings.lr
    initialise: Callable[[], None] | None = None  # sets weights in closed form before the first epoch
    # Validate the initial weights as epoch 0; keep them unless an epoch is better by two standard errors (paired).
    keep_initial: bool = False

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups of the optimiser."""
        trained = {part: [p for p in part.parameters() if p.requires_grad] for part in self.parts}
        return [{"params": p, "lr": self.own_lr.get(part, self.settings.lr)} for part, p in trained.items() if p]


class Learner:
    """A stage in training: its optimiser, learning rate, weights and progress.

    Attributes:
        kept: parameters of the best epoch.
        average: parameters averaged over about the share config.average of all steps; empty without averaging.
        initial: validation losses of the initial weights, if the stage may keep them.
    """

    def __init__(self, stage: Stage, model: nn.Module, config: TrainConfig) -> None:
        self.stage, self.model, self.config = stage, model, config
        self.optimiser = torch.optim.AdamW(stage.groups(), weight_decay=stage.settings.weight_decay, fused=True)
        self.parameters: list[nn.Parameter] = [p for group in stage.groups() for p in group["params"]]
        self.batches = -(-stage.size // stage.settings.batch_size)
        self.epochs = stage.settings.epochs_of(self.batches)
        self.steps = self.epochs * self.batches
        if stage.cosine:
            rise, steps = min(WARM_UP, 1 + self.steps // 10), self.steps  # not self: a cycle would keep caches alive
            wave = lambda i: min(1.0, (i + 1) / rise) * (1 + math.cos(math.pi * i / steps)) / 2  # noqa: E731
            self.schedule = LambdaLR(self.optimiser, wave)
        else:
            self.schedule = ReduceLROnPlateau(self.optimiser, factor=0.5, patience=config.patience)
        self.epoch, self.best_epoch, self.best = 0, 0, math.inf
        self.kept = _copies(self.parameters)
        self.average = _copies(self.parameters) if stage.cosine and config.average else []
        self.initial: list[float] = []

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the last config.early_stop epochs brought no better loss."""
        stopped = self.stage.early_stop and self.epoch - self.best_epoch >= self.config.early_stop
        return stopped or self.epoch >= self.epochs

    def state_dict(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in SAVED} | {k: getattr(self, k).state_dict() for k in STATEFUL}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from :meth:`state_dict`; raises nearly anything if it is damaged."""
        check_like(state, {k: getattr(self, k) for k in SAVED})
        for k in STATEFUL:
            getattr(self, k).load_state_dict(state[k])
        for k in SAVED:
            setattr(self, k, state[k])
        self.average = [a.to(p) for a, p in zip(self.average, self.parameters, strict=False)]

    def validate_initial(self) -> dict[str, Any]:
        """Validate the initial weights; return their row of the history."""
        losses = self._validate()
        self.best, self.initial = float(losses.mean()), losses.tolist()
        row = {"epoch": 0, "train": None, "valid": self.best, "lr": 0.0, "kept": True, "seconds": 0.0}
        return {"stage": self.stage.name} | row

    def train_epoch(self, bar: tqdm) -> dict[str, Any]:
        """Train one epoch, validate, and keep the weights if they are the best; return the row of the history."""
        started, lr, name = time.perf_counter(), self.optimiser.param_groups[0]["lr"], self.stage.name
        self.epoch += 1
        bar.set_description(count := f"{name} epoch {self.epoch}/{self.epochs}")
        train, losses = self._train(bar), self._validate()
        valid = float(losses.mean())
        if not self.stage.cosine:
            self.schedule.step(valid)
        better = valid < self.best
        if self.initial:
            gain = torch.tensor(self.initial, dtype=torch.float64) - losses
            better = better and bool(gain.mean() > 2 * gain.std() / len(gain) ** 0.5)
        if better:
            self.best, self.best_epoch = valid, self.epoch
            self.kept = _copies(self.average or self.parameters)
        seconds = round(time.perf_counter() - started, 2)
        bar.set_postfix_str(f"valid {valid:.4f}")
        with bar.external_write_mode():  # the line stands above the bar
            print(f"{count}: train {train:.4f}, valid {valid:.4f}, lr {lr:.2g}, {seconds:.1f} s", flush=True)
        row = {"train": train, "valid": valid, "lr": lr, "kept": better, "seconds": seconds}
        return {"stage": name, "epoch": self.epoch, **row}

    def _train(self, bar: tqdm) -> float:
        """Train on all samples once; return the mean loss."""
        self.model.eval()  # no dropout in modules that are not trained
        for part in self.stage.parts:
            part.train()
        seed, name, size = self.config.seed, self.stage.name, self.stage.settings.batch_size
        generator = torch.Generator().manual_seed(derive_seed(seed, name, self.epoch))
        batches = torch.randperm(self.stage.size, generator=generator).split(size)
        masks = self.stage.masks(generator).split(size) if self.stage.masks else [None] * len(batches)
        horizon, losses = 1 + self.config.average * self.steps, []
        with seeded(derive_seed(seed, "default", name, self.epoch)):  # dropout uses torch's default generator
            for step, (rows, mask) in enumerate(zip(batches, masks, strict=True), (self.epoch - 1) * len(batches) + 1):
                self.optimiser.zero_grad()
                loss = self.stage.loss(rows, generator, mask)
                if loss.requires_grad:  # a complete batch has no diffusion loss
                    loss.backward()
                    nn.utils.clip_grad_value_(self.parameters, self.config.clip)
                    self.optimiser.step()
                if self.stage.cosine:
                    self.schedule.step()
                if self.average:
                    weights, share = [p.detach() for p in self.parameters], max(1 / horizon, 9 / (9 + step))
                    torch._foreach_lerp_(self.average, weights, share)
                losses.append(loss.detach())
                bar.update()
        values = torch.stack(losses).cpu().double()  # once an epoch: a GPU need not wait for the host
        if bad := (~torch.isfinite(values)).nonzero()[:1].flatten().tolist():
            first = ", ".join(map(str, batches[bad[0]][:3].tolist()))
            what = f"stage {name}, epoch {self.epoch}: the loss is {values[bad[0]]} on training samples {first}, ..."
            raise UserError(f"{what}: look for extreme numbers there (imder check), or lower the learning rate")
        return sum(float(v) * len(rows) for v, rows in zip(values, batches, strict=True)) / self.stage.size

    def _validate(self) -> Tensor:
        """Validation losses of the averaged weights, or of the weights without averaging."""
        current = _copies(self.parameters)
        self.model.eval()
        self.set_weights(self.average or current)
        with torch.no_grad(), seeded(derive_seed(self.config.seed, "default", self.stage.name, "valid")):
            losses = self.stage.validate()
        self.set_weights(current)
        if not torch.isfinite(losses).all():
            row = int((~torch.isfinite(losses)).nonzero()[0])
            what = f"stage {self.stage.name}, epoch {self.epoch}: validation loss number {row} of {len(losses)}"
            raise UserError(f"{what} is not finite: look for extreme numbers in the validation split (imder check)")
        return losses

    @torch.no_grad()
    def set_weights(self, values: list[Tensor]) -> None:
        """Set the trained parameters."""
        for p, value in zip(self.parameters, values, strict=True):
            p.copy_(value)


def _copies(tensors: list[Tensor]) -> list[Tensor]:
    return [t.detach().clone() for t in tensors]


class Trainer:
    """Runs stages on one model. A run that is killed after an epoch can be resumed with the same results.

    The resumed run must have the same ``config`` and ``about``, plain values. Random numbers of an epoch depend on
    (seed, stage, epoch) only, so no generator state is saved.

    Attributes:
        done: names of finished stages.
        history: one row per stage and epoch.
        limits: stage -> epochs at most, for history.csv.
        cut: state of the interrupted stage; empty between stages.

    Raises:
        UserError: the folder holds another run, or cannot be written.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, folder: Path, resume: bool, about: dict) -> None:
        self.model, self.config, self.folder, self.about = model, config, folder, asdict(config) | about
        begun = (folder / CHECKPOINT).exists()
        if begun and not resume:
            raise UserError(f"{folder} holds a training run: pass resume=True, or name another folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from None
        state = read_checkpoint(folder, model) if begun else {"config": self.about, "done": [], "history": []}
        if self.about.keys() - state["config"].keys():
            raise UserError(f"{folder} was trained by an earlier version of the kit: name another folder")
        old, new = (pd.json_normalize(c).iloc[0].to_dict() for c in (state["config"], self.about))
        if changed := sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k)):
            what = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
            raise UserError(f"{folder} was trained with other settings ({what}): name another folder")
        self.done, self.history, self.cut = state["done"], state["history"], state.get("stage", {})
        self.limits: dict[str, int] = state.get("limits", {})

    def run(self, stage: Stage) -> None:
        """Train one stage and set the weights of its best epoch in the model."""
        epochs, parts = stage.settings.epochs, stage.groups()
        if epochs and stage.initialise and not self.cut:
            stage.initialise()
        if epochs and parts:
            learner = Learner(stage, self.model, self.config)
            if self.cut:
                try:
                    learner.load_state_dict(self.cut)
                except Exception:
                    what = f"the checkpoint in {self.folder} does not fit stage {stage.name}"
                    raise UserError(f"{what}: name another folder") from None
            elif stage.keep_initial:
                self.history.append(learner.validate_initial())
            self.limits[stage.name] = learner.epochs
            with progress_bar(learner.steps, stage.name, learner.epoch * learner.batches) as bar:
                while not learner.finished:
                    self.history.append(learner.train_epoch(bar))
                    self._save(learner.state_dict())
                bar.total = bar.n  # early stopping is no failure
            learner.set_weights(learner.kept)
        self.done.append(stage.name)
        self._save({})

    def _save(self, cut: dict[str, Any]) -> None:
        self.cut = cut
        state = {k: getattr(self, k) for k in ("done", "history", "limits")}
        state |= {"config": self.about, "stage": cut}
        write_checkpoint(self.folder, state | {"model": self.model.state_dict()})
        rows = [row | {"epochs": self.limits.get(row["stage"])} for row in self.history]
        write_text(self.folder / "history.csv", pd.DataFrame(rows).to_csv(index=False))
