"""The loop that every training stage shares: epochs, validation, early stop, plateau schedule, checkpoints, resume."""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from tqdm import tqdm

from imder_lib.config import TrainConfig
from imder_lib.diffusion.noise import derive_seed, seeded
from imder_lib.experiment.checkpoint import load_state, restore, save_state, write_text

WARM_UP = 100  # steps, and at most a tenth of all


@dataclass
class Stage:
    """One stage of a recipe.

    Attributes:
        name: stands in the history and the checkpoint.
        parts: modules that learn.
        epochs: at most.
        loss: (rows, generator) -> scalar; ``rows`` are of the training split.
        validate: () -> (n,) losses of validation samples or batches; their noise is the same every epoch.
        size: number of training samples.
        lr, batch_size: of Adam; batch size 0: the configuration's.
        cosine: the rate rises, then falls to 0 on a cosine; else it halves on a plateau.
        to_the_end: no early stop: what is averaged at a high rate gets better when the rate falls.
        weight_decay: of AdamW; plain Adam at 0.
        average: weights averaged exponentially over this share of all steps are validated and kept; 0: the weights are.
        initialise: sets the weights in closed form, once before the first epoch of a new stage.
        keep_initial: the weights that the stage begins with are validated too, as epoch 0, and stay unless an epoch is
            lower by more than two standard errors of the paired difference: less can be chance.
        slow, slow_lr: the last of ``parts``, if it learns at a rate of its own (BERT).
    """

    name: str
    parts: list[nn.Module]
    epochs: int
    loss: Callable[[Tensor, torch.Generator], Tensor]
    validate: Callable[[], Tensor]
    size: int
    lr: float
    batch_size: int = 0
    cosine: bool = False
    to_the_end: bool = False
    weight_decay: float = 0.0
    average: float = 0.0
    initialise: Callable[[], None] | None = None
    keep_initial: bool = False
    slow: nn.Module | None = None
    slow_lr: float = 0.0

    def rate(self, step: int, steps: int) -> float:
        """The learning rate at a step of a cosine schedule."""
        rise = min(1.0, (step + 1) / min(WARM_UP, 1 + steps // 10))
        return self.lr * rise * (1 + math.cos(math.pi * step / steps)) / 2

    def parameters(self) -> list[nn.Parameter]:
        return [p for part in self.parts for p in part.parameters() if p.requires_grad]

    def groups(self) -> list[dict]:
        """Parameters by learning rate, in the order of :meth:`parameters`."""
        slow = {id(p) for p in self.slow.parameters()} if self.slow is not None else set()
        own = [{"params": [p for p in self.parameters() if id(p) not in slow], "lr": self.lr}]
        later = [p for p in self.parameters() if id(p) in slow]
        return own + ([{"params": later, "lr": self.slow_lr}] if later else [])


@dataclass
class Progress:
    """Where a run stands; everything here goes into the checkpoint's JSON."""

    config: dict
    count: int = 0
    done: list[str] = field(default_factory=list)
    stage: str = ""
    epoch: int = 0
    best: float = float("inf")
    best_epoch: int = 0
    initial: list[float] = field(default_factory=list)  # validation losses of the initial weights, if they may stay
    schedule: dict = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)


class Trainer:
    """Runs stages on one model; after every epoch the run can be killed and resumed to the same numbers.

    All randomness of an epoch comes from (seed, stage, epoch), so no generator state needs saving.
    """

    def __init__(self, model: nn.Module, config: TrainConfig, folder: Path, resume: bool) -> None:
        self.model, self.config, self.folder = model, config, folder
        self.progress = Progress(asdict(config))
        self.saved: dict[str, Tensor] = {}
        self.average: list[Tensor] = []  # of the stage that runs
        if resume:
            self.saved, state = load_state(folder)
            state.pop("tensors")
            self.progress = Progress(**state)
            restore(model, folder, self.saved)

    def run(self, stage: Stage) -> None:
        """Train one stage to its end and leave the best epoch's weights in the model; a finished stage is skipped."""
        p = self.progress
        if stage.name in p.done:
            return
        new, parameters = p.stage != stage.name, stage.parameters()
        if new and stage.initialise is not None and stage.epochs:
            stage.initialise()
        optimiser = torch.optim.AdamW(stage.groups(), weight_decay=stage.weight_decay)
        self.average = [q.detach().clone() for q in parameters] if stage.average else []
        schedule = ReduceLROnPlateau(optimiser, factor=0.5, patience=self.config.patience)
        if new:
            p.stage, p.epoch, p.best, p.best_epoch, p.initial, p.schedule = stage.name, 0, math.inf, 0, [], {}
            best = [q.detach().clone() for q in parameters]
            if stage.keep_initial and stage.epochs:
                losses = self._validate(stage, parameters, best)
                p.best, p.initial = float(losses.mean()), losses.tolist()
                row = {"epoch": 0, "train": None, "valid": p.best, "lr": 0.0, "kept": True, "seconds": 0.0}
                p.history.append({"stage": stage.name, **row})
        else:
            best = self._restore(optimiser, schedule)
        while p.epoch < stage.epochs and (stage.to_the_end or p.epoch - p.best_epoch < self.config.early_stop):
            started = time.perf_counter()
            p.epoch += 1
            train = self._epoch(stage, optimiser, parameters)
            kept = self.average or parameters
            losses = self._validate(stage, parameters, kept)
            valid = float(losses.mean())
            lr = optimiser.param_groups[0]["lr"]
            if not stage.cosine:
                schedule.step(valid)
            better = valid < p.best and _clearly_lower(losses, p.initial)
            if better:
                p.best, p.best_epoch = valid, p.epoch
                best = [q.detach().clone() for q in kept]
            row = {"stage": stage.name, "epoch": p.epoch, "train": train, "valid": valid, "lr": lr, "kept": better}
            p.history.append(row | {"seconds": round(time.perf_counter() - started, 2)})
            print(f"{stage.name} epoch {p.epoch}/{stage.epochs}: train {train:.4f}, valid {valid:.4f}, lr {lr:.2g}, "
                  f"{p.history[-1]['seconds']:.1f} s", flush=True)  # fmt: skip
            self._save(optimiser, schedule, best)
        with torch.no_grad():
            for q, value in zip(parameters, best, strict=True):
                q.copy_(value)
        self.finish(stage.name)

    def _validate(self, stage: Stage, parameters: list[nn.Parameter], values: list[Tensor]) -> Tensor:
        """Validation losses with these values in the parameters."""
        self.model.eval()
        with torch.no_grad(), self._seeded(stage.name, "valid"), _loaded(parameters, values):
            return stage.validate()

    def finish(self, name: str) -> None:
        """Note a stage as done and save."""
        self.progress.done.append(name)
        self._save(None, None, [])

    def _epoch(self, stage: Stage, optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter]) -> float:
        self.model.eval()  # what does not learn behaves as it will later (no dropout in a frozen part)
        for part in stage.parts:
            part.train()
        generator = torch.Generator().manual_seed(derive_seed(self.config.seed, stage.name, self.progress.epoch))
        order = torch.randperm(stage.size, generator=generator)
        batches = order.split(stage.batch_size or self.config.batch_size)
        total, step = 0.0, (self.progress.epoch - 1) * len(batches)
        with self._seeded(stage.name, self.progress.epoch):  # dropout draws from torch's default generator
            for rows in tqdm(batches, desc=stage.name, leave=False, disable=not sys.stderr.isatty()):
                if stage.cosine:
                    optimiser.param_groups[0]["lr"] = stage.rate(step, stage.epochs * len(batches))
                loss = stage.loss(rows, generator)
                optimiser.zero_grad()
                if loss.requires_grad:  # a batch that misses nothing has no score loss
                    loss.backward()
                    nn.utils.clip_grad_value_(parameters, self.config.clip)
                    optimiser.step()
                step += 1
                for a, q in zip(self.average, parameters, strict=False):
                    horizon = 1 + stage.average * stage.epochs * len(batches)
                    a.lerp_(q.detach(), max(1 / horizon, 9 / (9 + step)))
                total += loss.item() * len(rows)
        return total / stage.size

    def _seeded(self, *parts: object) -> AbstractContextManager[None]:
        return seeded(derive_seed(self.config.seed, "default", *parts))

    def _restore(self, optimiser: torch.optim.Optimizer, schedule: ReduceLROnPlateau) -> list[Tensor]:
        state = optimiser.state_dict()
        for key, value in self.saved.items():
            if key.startswith("adam."):
                _, i, name = key.split(".")
                state["state"].setdefault(int(i), {})[name] = value
        schedule.load_state_dict(schedule.state_dict() | self.progress.schedule)
        for group, lr in zip(state["param_groups"], self.progress.schedule["_last_lr"], strict=True):
            group["lr"] = lr
        optimiser.load_state_dict(state)
        for i, a in enumerate(self.average):
            a.copy_(self.saved[f"average.{i}"])
        best = sorted((k for k in self.saved if k.startswith("best.")), key=lambda k: int(k[5:]))
        parameters = [q for group in optimiser.param_groups for q in group["params"]]
        return [self.saved[k].to(q.device) for k, q in zip(best, parameters, strict=True)]

    def _save(
        self, optimiser: torch.optim.Optimizer | None, schedule: ReduceLROnPlateau | None, best: list[Tensor]
    ) -> None:
        p = self.progress
        p.count += 1
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"best.{i}": v for i, v in enumerate(best)}
        tensors |= {f"average.{i}": v for i, v in enumerate(self.average if optimiser else [])}
        if optimiser is not None:
            for i, state in optimiser.state_dict()["state"].items():
                tensors |= {f"adam.{i}.{k}": v for k, v in state.items()}
        if schedule is not None:
            keep = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr")
            p.schedule = {k: v for k, v in schedule.state_dict().items() if k in keep}
        save_state(self.folder, p.count, tensors, dict(vars(p)))
        write_text(self.folder / "history.csv", pd.DataFrame(p.history).to_csv(index=False))


def _clearly_lower(losses: Tensor, initial: list[float]) -> bool:
    """Whether losses lie below those of the initial weights by more than two standard errors of the difference."""
    gain = torch.tensor(initial, dtype=torch.float64) - losses if initial else None
    return gain is None or bool(gain.mean() > 2 * gain.std() / len(gain) ** 0.5)


@contextmanager
def _loaded(parameters: list[nn.Parameter], values: list[Tensor]) -> Iterator[None]:
    """Parameters hold other values inside the block."""

    def copy(source: list[Tensor]) -> None:
        with torch.no_grad():
            for q, v in zip(parameters, source, strict=True):
                q.copy_(v)

    own = [q.detach().clone() for q in parameters]
    copy(values)
    try:
        yield
    finally:
        copy(own)
