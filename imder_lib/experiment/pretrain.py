"""Pretraining: the fusion stage alone, and loading of pretrained models (the kit's or the authors')."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from imder_lib.config import RELEASED, ModelConfig, TrainConfig
from imder_lib.data.schema import MultimodalData
from imder_lib.errors import UserError, file_fault
from imder_lib.experiment.checkpoint import CHECKPOINT, write_tensors, write_text
from imder_lib.experiment.metrics import task_loss
from imder_lib.experiment.stages import in_batches
from imder_lib.experiment.trainer import Stage, Trainer
from imder_lib.experiment.training import fit
from imder_lib.model.bert import BERT_LR, check_finite, check_fit, last_hidden
from imder_lib.model.imder import KERNELS, IMDer
from imder_lib.model.released import fill_released, read_released, released_bert

PARTS = ("encoders.", "fusion.")  # what pretraining trains
BERT = "bert."


class WithBert(nn.Module):
    """An IMDer and its BERT, for one checkpoint."""

    def __init__(self, model: IMDer, bert: nn.Module) -> None:
        super().__init__()
        self.model, self.bert = model, bert


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
        data: must have text_bert if there is a BERT.
        config: of the fusion stage.
        out_dir: folder of the checkpoints, see :func:`imder_lib.fit`.
        path: output file, for example pt/pretrained-<dataset>.safetensors, with encoders, fusion and BERT.
        bert: computes the text features, and is trained.
        resume: continue after the last finished epoch in ``out_dir``.

    Returns:
        ``path``

    Raises:
        UserError: ``out_dir`` holds another run, or the data do not fit the model.
    """
    path, folder = Path(path), Path(out_dir)
    if bert is None:
        fit(model, data, config, folder, resume=resume, until="fusion")
    else:
        data.train.tokens([0])
        if (folder / CHECKPOINT).exists() and not resume:
            raise UserError(f"{folder} holds a training run: pass resume=True, or name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(WithBert(model, bert), config, folder, resume=(folder / CHECKPOINT).exists())
        if trainer.trained_with != asdict(config):
            raise UserError(f"{folder} was trained with other settings: name another folder")
        trainer.run(_stage(model, bert, data, config))
    model.eval()
    tensors = {k: v for k, v in model.state_dict().items() if k.startswith(PARTS)}
    tensors |= {} if bert is None else {BERT + k: v for k, v in bert.eval().state_dict().items()}
    write_tensors(path, tensors)
    note = {"data": data.name, "data_sha256": data.sha256, "model": asdict(model.config), "train": asdict(config)}
    write_text(path.with_suffix(".json"), json.dumps(note, indent=1))
    return path


def _stage(model: IMDer, bert: nn.Module, data: MultimodalData, config: TrainConfig) -> Stage:
    device = next(model.parameters()).device

    def error(split: str, rows: Tensor) -> Tensor:
        batch = data.splits[split].batch(rows.numpy()).to(device)
        text = last_hidden(bert, data.splits[split].tokens(rows.numpy()).to(device))
        latents = model.encode(batch.features | {"text": text}, batch.lengths)
        return task_loss(model.fusion(latents)[0], batch.labels)

    return Stage(
        "fusion",
        [(model.encoders, config.lr), (model.fusion, config.lr), (bert, BERT_LR)],
        config.fusion_epochs,
        loss=lambda rows, generator, mask: error("train", rows),
        validate=lambda: in_batches(len(data.valid), config.batch_size, lambda rows: error("valid", rows)),
        size=len(data.train),
        batch_size=config.batch_size,
    )


def read_pretrained(path: str | Path) -> dict[str, Tensor]:
    """Read a pretrained model: a .safetensors file of the kit, or the authors' checkpoint (any other suffix)."""
    path = Path(path)
    if path.suffix != ".safetensors":
        return read_released(path)
    try:
        state = load_file(path)
    except Exception:
        raise UserError(f"no pretrained model can be read from {path}: {file_fault(path)}") from None
    check_finite(state, path)
    return state


def pretrained_bert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """BERT's part of a pretrained model, with standard names; empty if there is none."""
    own = {k.removeprefix(BERT): v for k, v in state.items() if k.startswith(BERT)}
    return own or released_bert(state)


def like_pretrained(config: ModelConfig, state: Mapping[str, Tensor]) -> ModelConfig:
    """Change a configuration to the pretrained model's encoders, with a readout if the model has one.

    The authors' encoders are "learned".
    """
    kernels = {v.shape[-1] for k, v in state.items() if k.startswith("encoders.")}
    kind = "components" if kernels == {KERNELS["components"]} else "learned"
    readout = config.readout or any(k.startswith("fusion.readout.") for k in state)
    return replace(config, encoders=kind, readout=readout)


def load_pretrained(model: IMDer, state: Mapping[str, Tensor]) -> None:
    """Load pretrained encoders and fusion into a model; under the released rules also the authors' recoverer.

    Raises:
        UserError: missing or extra names, or wrong shapes; the model is unchanged.
    """
    if not any(k.startswith(PARTS) for k in state):
        same = model.config.rules == RELEASED and not model.config.readout
        released = model if same else IMDer(replace(model.config, rules=RELEASED, readout=False))
        fill_released(released, dict(state))
        state = {k: v for k, v in released.state_dict().items() if k.startswith(PARTS)}
        readout = {k: v for k, v in model.state_dict().items() if k.startswith("fusion.readout.")}
        # The released model has no readout, so it is initialised to zero.
        state |= {k: torch.zeros_like(v) for k, v in readout.items()}
    given = {k: v for k, v in state.items() if not k.startswith(BERT)}
    expected = {k: v for k, v in model.state_dict().items() if k.startswith(PARTS)}
    check_fit(given, {k: tuple(v.shape) for k, v in expected.items()}, "the pretrained model")
    with torch.no_grad():
        for k, v in model.state_dict().items():
            if k in given:
                v.copy_(given[k])
