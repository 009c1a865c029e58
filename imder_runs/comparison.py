"""Comparison of recoverers that share the fusion stage and the training settings."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from imder_lib.config import KIT, RELEASED, RELEASED_SAMPLER, ModelConfig, TrainConfig
from imder_lib.data.schema import MultimodalData
from imder_lib.diffusion.samplers import Sampler
from imder_lib.errors import UserError, unknown
from imder_lib.experiment.training import FitResult, fit
from imder_lib.model.imder import IMDer
from imder_lib.settings import changed
from imder_runs.locks import held
from imder_runs.pretrain import load_pretrained

# Name in the table -> changes to the model configuration. The network draws nothing: guidance is the kit's alone.
COMPARED: Mapping[str, Mapping[str, object]] = {
    "dropout": {"recoverer": "zero"},
    "regression": {"recoverer": "regression"},
    "network": {"recoverer": "network", "rules": replace(RELEASED, latents="standardised"), "sampler": Sampler()},
    "released": {"recoverer": "diffusion", "rules": RELEASED, "sampler": RELEASED_SAMPLER, "mask_padding": False},
    "kit": {"recoverer": "diffusion", "rules": KIT},
}


def compared_config(name: str, model: ModelConfig) -> ModelConfig:
    """The configuration of one recoverer: the common one, with its changes and the same number of network calls."""
    return changed(changed(model, **COMPARED[name]), sampler={"steps": model.sampler.steps})


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
    """Train the model of one recoverer: the shared fusion stage, then its own stages.

    Args:
        name: one of :data:`COMPARED`; "dropout" is fusion trained on zeros for missing modalities.
        model, train: common configurations; :data:`COMPARED` gives the changes for ``name``.
        folder: folder of one seed, with subfolders "fusion" and ``name``; finished parts are not trained again.
        until: stop after this stage, see :func:`fit`.
        pretrained: pretrained encoders and fusion, see :func:`load_pretrained`.
        data, device: of training.

    Returns:
        the model, with the history of all stages
    """
    if name not in COMPARED:
        raise unknown("unknown recoverer", name, COMPARED)
    first = IMDer(replace(model, recoverer="zero"), seed=train.seed)
    if pretrained is not None:
        load_pretrained(first, pretrained)
    kept = pretrained is not None and not train.fusion.epochs  # the stage leaves these weights as they are
    given = {k: v.clone() for k, v in first.state_dict().items()} if kept else {}
    with held(folder / "fusion"):
        shared = fit(first.to(device), data, train, folder / "fusion", resume=True, until="fusion")
    if any(not torch.equal(v, first.state_dict()[k].cpu()) for k, v in given.items()):
        raise UserError(f"{folder / 'fusion'} holds another pretrained model: name another output folder")
    if until == "fusion":
        return shared
    own = IMDer(compared_config(name, model), seed=train.seed).to(device)
    own.encoders.load_state_dict(first.encoders.state_dict())
    own.fusion.load_state_dict(first.fusion.state_dict())
    with held(folder / name):  # two notebooks may want the same model
        result = fit(own, data, changed(train, fusion={"epochs": 0}), folder / name, resume=True, until=until)
    history = pd.concat([shared.history, result.history], ignore_index=True)
    return replace(result, history=history, seconds=shared.seconds + result.seconds)
