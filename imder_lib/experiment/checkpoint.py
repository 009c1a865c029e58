"""Models (safetensors and JSON) and training checkpoints in files."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from imder_lib.config import ModelConfig
from imder_lib.errors import UserError, file_fault
from imder_lib.files import write_text, written_whole
from imder_lib.model.imder import IMDer
from imder_lib.model.weights import check_finite, check_fit
from imder_lib.settings import changed

CHECKPOINT = "checkpoint.pt"  # of a training run, in its folder
PLAIN = str | int | float | None
MOST = 1000  # layers and blocks of a model in a file, so that a damaged file does not fill the memory


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors."""
    with written_whole(path) as part:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, part)


def write_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write the checkpoint of a training run: one dict of tensors and plain values."""
    with written_whole(folder / CHECKPOINT) as part:
        torch.save(state, part)


def read_checkpoint(folder: Path, model: nn.Module) -> dict[str, Any]:
    """Read the checkpoint in a folder and load its weights into the model."""
    try:
        state = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
        _check_state(state)
    except Exception:  # missing, truncated or another format: the same remedy
        raise UserError(
            f"no checkpoint can be read in {folder} ({file_fault(folder / CHECKPOINT)}), or name another folder"
        ) from None
    try:
        model.load_state_dict(state["model"])
    except (RuntimeError, TypeError, AttributeError) as error:  # other settings, or another version of the kit
        short = " ".join(str(error).split())
        raise UserError(f"the checkpoint in {folder} is of another model ({short:.160}): name another folder") from None
    return state


def _check_state(state: dict[str, Any]) -> None:
    """Raise any error unless a checkpoint has the parts that a :class:`~.trainer.Trainer` has written."""
    config, rows = state["config"], state["history"]
    names = [*state["done"], *state.get("limits", {}), *config, *(row["stage"] for row in rows)]
    sound = all(isinstance(x, list) for x in (state["done"], rows)) and isinstance(state.get("stage", {}), dict)
    sound = sound and "model" in state and all(isinstance(x, str) for x in names)
    values = [x for row in rows for x in row.values()] + [x for x in config.values() if not isinstance(x, dict)]
    if not sound or not all(isinstance(x, PLAIN) for x in values):
        raise TypeError("parts of other types")


def check_like(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise nearly anything unless a state has the types of ``own``: in lists tensors of its shapes, or else floats."""
    for k, v in own.items():
        sound = type(state[k]) is type(v)
        if isinstance(v, list) and v and isinstance(v[0], Tensor):
            sound = sound and [x.shape for x in state[k]] == [x.shape for x in v]
        elif isinstance(v, list):
            sound = sound and all(isinstance(x, float) for x in state[k])
        if not sound:
            raise TypeError(f"{k} of another type or shape")


def read_tensors(path: Path, what: str) -> dict[str, Tensor]:
    """Read safetensors; a UserError for a missing or damaged file, or a tensor with values that are not finite."""
    try:
        state = load_file(path)
    except Exception:
        raise UserError(f"no {what} can be read from {path}: {file_fault(path)}") from None
    check_finite(state, path)
    return state


def save_model(model: IMDer, path: str | Path) -> None:
    """Save the weights to ``path`` (.safetensors) and the configuration beside it (.json)."""
    path = Path(path)
    write_tensors(path, model.state_dict())
    write_text(path.with_suffix(".json"), json.dumps(asdict(model.config), indent=1))


def load_model(path: str | Path, device: torch.device | str = "cpu") -> IMDer:
    """Load a model written by :func:`save_model`, in eval mode."""
    path = Path(path)
    state = read_tensors(path, "model")
    try:
        config = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        config = changed(ModelConfig(config["widths"]), **config)
        sizes = (config.fusion.layers, config.joint.blocks, config.unet.refiner_blocks, len(config.unet.channels))
        if max(sizes) > MOST:
            raise ValueError(f"more than {MOST} layers or blocks")
        with torch.device("meta"):  # costs no memory, whatever the sizes
            shapes = {k: tuple(v.shape) for k, v in IMDer(config).state_dict().items()}
        check_fit(state, shapes, path.name)
        model = IMDer(config)
        model.load_state_dict(state)
    except Exception as error:  # odd settings can raise nearly anything
        raise UserError(f"no model can be read from {path} ({error!s:.200})") from None
    return model.to(device).eval()
