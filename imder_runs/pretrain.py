"""Pretraining: the fusion stage alone, and loading of pretrained models (the kit's or the authors')."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from imder_lib.config import RELEASED, RELEASED_SAMPLER, ModelConfig, TrainConfig
from imder_lib.data.schema import MultimodalData
from imder_lib.experiment.checkpoint import read_tensors, write_tensors, write_text
from imder_lib.experiment.training import fit
from imder_lib.model.imder import KERNELS, IMDer
from imder_lib.model.released import BERT as RELEASED_BERT
from imder_lib.model.released import fill_released, read_released
from imder_lib.model.weights import check_fit
from imder_lib.settings import changed

BERT, READOUT = "bert.", "fusion.readout."


def _parts(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What pretraining trains: encoders and fusion."""
    return {k: v for k, v in state.items() if k.startswith(("encoders.", "fusion."))}


def pretrain(
    model: IMDer,
    data: MultimodalData,
    config: TrainConfig,
    out_dir: str | Path,
    path: str | Path,
    *,
    bert: nn.Module | None = None,
    resume: bool = False,
) -> Path:
    """Train encoders and fusion on complete data, and BERT with them if given (learning rate 1e-4).

    Encoders "components" are fixed without BERT. With BERT they are trained, because its features change.

    Args:
        model: changed in place; its text width is BERT's if there is one.
        data, config, out_dir, resume, bert: see :func:`imder_lib.fit`.
        path: output file, for example pt/pretrained-<dataset>.safetensors, with encoders, fusion and BERT.

    Returns:
        ``path``
    """
    path = Path(path)
    fit(model, data, config, out_dir, resume=resume, until="fusion", bert=bert)
    tensors = _parts(model.state_dict())
    tensors |= {} if bert is None else {BERT + k: v for k, v in bert.eval().state_dict().items()}
    write_tensors(path, tensors)
    note = {"data": data.name, "data_sha256": data.sha256, "model": asdict(model.config), "train": asdict(config)}
    write_text(path.with_suffix(".json"), json.dumps(note, indent=1))
    return path


def read_pretrained(path: str | Path) -> dict[str, Tensor]:
    """Read a pretrained model: a .safetensors file of the kit, or the authors' checkpoint (any other suffix)."""
    path = Path(path)
    return read_tensors(path, "pretrained model") if path.suffix == ".safetensors" else read_released(path)


def pretrained_bert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """BERT's part of a pretrained model, with standard names; empty if there is none."""
    own = {k.removeprefix(BERT): v for k, v in state.items() if k.startswith(BERT)}
    return own or {RELEASED_BERT.sub("", k): v for k, v in state.items() if RELEASED_BERT.match(k)}


def like_pretrained(config: ModelConfig, state: Mapping[str, Tensor]) -> ModelConfig:
    """Change a configuration to the pretrained model's encoders, with a readout if the model has one.

    The authors' encoders are "learned".
    """
    kernels = {v.shape[-1] for k, v in state.items() if k.startswith("encoders.")}
    kind = "components" if kernels == {KERNELS["components"]} else "learned"
    readout = config.fusion.readout or any(k.startswith(READOUT) for k in state)
    return changed(config, encoders=kind, fusion={"readout": readout})


def load_pretrained(model: IMDer, state: Mapping[str, Tensor]) -> None:
    """Load pretrained encoders and fusion into a model; under the released rules also the authors' recoverer.

    Raises:
        UserError: missing or extra names, or wrong shapes; the model is unchanged.
    """
    own = _parts(model.state_dict())
    if not _parts(state):
        same = model.config.rules == RELEASED and not model.config.fusion.readout
        rules = {"rules": RELEASED, "sampler": RELEASED_SAMPLER, "fusion": {"readout": False}}
        released = model if same else IMDer(changed(model.config, **rules))
        fill_released(released, dict(state))
        # The released model has no readout, so it is initialised to zero.
        readout = {k: torch.zeros_like(v) for k, v in own.items() if k.startswith(READOUT)}
        state = _parts(released.state_dict()) | readout
    given = {k: v for k, v in state.items() if not k.startswith(BERT)}
    check_fit(given, {k: tuple(v.shape) for k, v in own.items()}, "the pretrained model")
    model.load_state_dict(given, strict=False)  # the recoverer stays as it is
