"""fit: training by one of two recipes, which are lists of stages."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from imder_lib.config import TrainConfig
from imder_lib.data.schema import MultimodalData
from imder_lib.errors import UserError
from imder_lib.experiment.checkpoint import CHECKPOINT, save_model
from imder_lib.experiment.stages import adapt_stage, diffusion_stage, fusion_stage, joint_stage
from imder_lib.experiment.trainer import Trainer
from imder_lib.model.imder import IMDer

RECIPES = {"staged": ("fusion", "diffusion", "adapt"), "released": ("fusion", "joint")}


@dataclass
class FitResult:
    """Result of training.

    Attributes:
        model: model with the weights of the best epochs, in eval mode.
        history: one row per stage and epoch: train and valid loss, lr, kept, seconds. Epoch 0 is the initial weights.
            The model has the weights of the last kept row of each stage.
        path: of model.safetensors; None if a stage is left, see ``until``.
        seconds: duration of this call.
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
    """Train a model on the training split; select weights on the validation split. The test split is never read.

    Args:
        model: changed in place; training uses its device.
        data: data with the model's modalities and widths.
        config: recipe and hyper-parameters.
        out_dir: folder of checkpoint.pt and history.csv; at the end also model.safetensors and model.json.
        resume: continue after the last finished epoch in ``out_dir``, if there is one.
        until: stop after this stage.

    Raises:
        UserError: the data do not fit the model, or ``out_dir`` holds another run or cannot be written.
    """
    started = time.perf_counter()
    folder = Path(out_dir)
    if data.widths != dict(model.config.widths):
        raise UserError(f"the widths of the data are {data.widths}, the model expects {dict(model.config.widths)}")
    if model.config.outputs != (data.classes or 1):
        kind = f"{data.classes} classes" if data.classes else "numbers, which need 1"
        raise UserError(f"the model has {model.config.outputs} outputs, the labels are {kind}: set outputs to fit")
    names = RECIPES[config.recipe]
    if until is not None and until not in names:
        raise UserError(f"until={until!r}: expected a stage of recipe {config.recipe!r}, one of {names}")
    begun = (folder / CHECKPOINT).exists()
    if begun and not resume:
        raise UserError(f"{folder} holds a training run: pass resume=True, or name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from None
    trainer = Trainer(model, config, folder, resume=begun)
    if trainer.trained_with != asdict(config):
        old = trainer.trained_with
        changed = sorted(k for k in old.keys() | asdict(config).keys() if old.get(k) != asdict(config).get(k))
        raise UserError(f"{folder} was trained with other settings ({', '.join(changed)}): name another folder")
    stages = {"fusion": fusion_stage, "diffusion": diffusion_stage, "adapt": adapt_stage, "joint": joint_stage}
    for name in names:
        if name not in trainer.done:
            trainer.run(stages[name](model, data, config))
        if name == until:
            break
    finished = set(names) <= set(trainer.done)
    path = folder / "model.safetensors" if finished else None
    if path is not None:
        save_model(model, path)
    history = pd.DataFrame(trainer.history)
    return FitResult(model.eval(), history, path, time.perf_counter() - started)
