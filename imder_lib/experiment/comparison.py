"""Recoverers side by side: one first stage, one trainer, one budget, then one table."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from imder_lib.config import KIT, RELEASED, RELEASED_SAMPLER, ModelConfig, TrainConfig
from imder_lib.data.schema import MultimodalData
from imder_lib.errors import UserError
from imder_lib.experiment.pretrain import load_pretrained
from imder_lib.experiment.training import FitResult, fit
from imder_lib.model.imder import IMDer

# Name in the table -> what differs in the model's configuration.
COMPARED: Mapping[str, Mapping[str, object]] = {
    "dropout": {"recoverer": "zero"},
    "regression": {"recoverer": "regression"},
    "network": {"recoverer": "network", "rules": replace(RELEASED, latents="standardised")},
    "released": {"recoverer": "diffusion", "rules": RELEASED, "sampler": RELEASED_SAMPLER, "mask_padding": False},
    "kit": {"recoverer": "diffusion", "rules": KIT},
}


def train_compared(
    name: str,
    data: MultimodalData,
    model: ModelConfig,
    train: TrainConfig,
    folder: Path,
    device: torch.device | str = "cpu",
    until: str | None = None,
    pretrained: Mapping[str, Tensor] | None = None,
) -> FitResult:
    """Train one recoverer's model: the first stage that all share, then its own.

    Args:
        name: one of :data:`COMPARED`; "dropout" is fusion trained on zeros in place of what is missing.
        model, train: configurations of every row; what :data:`COMPARED` says is changed.
        folder: of one seed: FOLDER/fusion and FOLDER/NAME; a finished part is not trained again.
        device: of training.
        until: stop after this stage, see :func:`fit`.
        pretrained: see :func:`load_pretrained`; of the first stage.

    Returns:
        the model, with the history of all its stages
    """
    if name not in COMPARED:
        raise UserError(f"unknown recoverer {name!r}: expected one of {list(COMPARED)}")
    first = IMDer(replace(model, recoverer="zero"), seed=train.seed)
    if pretrained is not None:
        load_pretrained(first, pretrained)
    shared = fit(first.to(device), data, train, folder / "fusion", resume=True, until="fusion")
    if until == "fusion":
        return shared
    config = replace(model, **COMPARED[name])
    config = replace(config, sampler=replace(config.sampler, steps=model.sampler.steps))  # one budget for all
    own = IMDer(config, seed=train.seed).to(device)
    own.encoders.load_state_dict(first.encoders.state_dict())
    own.fusion.load_state_dict(first.fusion.state_dict())
    result = fit(own, data, replace(train, fusion_epochs=0), folder / name, resume=True, until=until)
    history = pd.concat([shared.history, result.history], ignore_index=True)
    return replace(result, history=history, seconds=shared.seconds + result.seconds)
