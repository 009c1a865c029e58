"""fit: training by one of two recipes, which are lists of stages."""

import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from torch import nn

from imder_lib.config import TrainConfig
from imder_lib.data.schema import MultimodalData
from imder_lib.errors import UserError
from imder_lib.experiment.checkpoint import save_model
from imder_lib.experiment.stages import RECIPES, adapts, fusion_stage
from imder_lib.experiment.trainer import Trainer
from imder_lib.model.imder import IMDer, check_outputs, check_widths
from imder_lib.nets.precision import computing

# The one rule of which weights are kept, for readers; tables of a report show it.
BEST_EPOCH = (
    "Each stage of training keeps the epoch with the lowest validation loss, or a start in closed form that no epoch "
    "beats by two standard errors; the test split chooses nothing."
)


@dataclass
class FitResult:
    """Result of training."""

    model: IMDer  # with the weights of the best epochs, in eval mode
    # One row per stage and epoch: train and valid loss, lr, kept, seconds. Epoch 0 is the initial weights. The model
    # has the weights of the last kept row of each stage.
    history: pd.DataFrame
    path: Path | None  # of model.safetensors; None if a stage is left
    seconds: float  # of this call


def fit(
    model: IMDer,
    data: MultimodalData,
    config: TrainConfig,
    out_dir: str | Path,
    *,
    resume: bool = False,
    until: str | None = None,
    bert: nn.Module | None = None,
) -> FitResult:
    """Train a model on the training split; select weights on the validation split. The test split is never read.

    Args:
        model: changed in place; training uses its device.
        out_dir: folder of checkpoint.pt and history.csv; at the end also model.safetensors and model.json.
        resume: continue after the last finished epoch in ``out_dir``, if there is one.
        until: stop after this stage.
        bert: computes the text features from text_bert, and is trained in the fusion stage, the only one then.

    Raises:
        UserError: the data do not fit the model, or ``out_dir`` cannot be written or holds a run of something else.
    """
    started = time.perf_counter()
    stages = dict(RECIPES[config.recipe])
    if until is not None and until not in stages:
        raise UserError(f"until={until!r}: expected a stage of recipe {config.recipe!r}, one of {tuple(stages)}")
    trained, widths = model, data.widths
    if bert is not None:
        data.train.tokens([0])  # raises if there are none
        trained, widths = nn.ModuleDict({"model": model, "bert": bert}), widths | {"text": bert.config.hidden_size}
        stages["fusion"], until = partial(fusion_stage, bert=bert), "fusion"
    check_widths(model.config.widths, widths)
    check_outputs(model.config, data.classes)
    about = asdict(model.config) | {"modalities": list(model.modalities)}
    if not (model.recoverer.stochastic and (config.recipe == "released" or adapts(model, data, config))):
        del about["sampler"]  # nothing is trained on draws
    about = {"model": about, "data": data.sha256, "samples": len(data.train)}
    trainer = Trainer(trained, config, Path(out_dir), resume, about)
    for name, stage in stages.items():
        if name not in trainer.done:
            with computing(model.config.precision, next(model.parameters()).device):
                trainer.run(stage(model, data, config))
        if name == until:
            break
    path = None
    if set(stages) <= set(trainer.done):
        path = trainer.folder / "model.safetensors"
        save_model(model, path)
    return FitResult(model.eval(), pd.DataFrame(trainer.history), path, time.perf_counter() - started)
