"""Checkpoints: tensors as safetensors, everything else as JSON, written whole or not at all."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from imder_lib.config import ModelConfig, Rules
from imder_lib.errors import UserError
from imder_lib.model.imder import IMDer

STATE = "state.json"


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """The same for tensors (moved to the CPU, made contiguous and unshared)."""
    part = path.with_name(f".{path.name}.part")
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, part)
    part.replace(path)


def save_state(folder: Path, count: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """One checkpoint: the tensor file first, then the JSON that points to it, then the old tensor file goes."""
    name = f"step-{count:06d}.safetensors"
    write_tensors(folder / name, tensors)
    write_text(folder / STATE, json.dumps(state | {"tensors": name}, indent=1))
    for old in folder.glob("step-*.safetensors"):
        if old.name != name:
            old.unlink()


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The last checkpoint in a folder."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        return load_file(folder / state["tensors"]), state
    except Exception as error:  # missing, cut short or foreign: to the user it is one thing
        raise UserError(
            f"no checkpoint can be read in {folder} ({error!s:.120}): start anew in another folder"
        ) from None


def restore(model: nn.Module, folder: Path, tensors: dict[str, Tensor]) -> None:
    """Set the model's weights to those that :func:`load_state` read in ``folder``; UserError if they do not fit."""
    try:
        model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    except RuntimeError as error:  # of other settings, or of a version of the kit with another architecture
        short = " ".join(str(error).split())
        raise UserError(
            f"the checkpoint in {folder} is of another model ({short:.160}): start anew in another folder"
        ) from None


def save_model(model: IMDer, path: str | Path) -> None:
    """Weights to PATH (.safetensors) and the configuration beside it (.json)."""
    path = Path(path)
    write_tensors(path, model.state_dict())
    write_text(path.with_suffix(".json"), json.dumps(asdict(model.config), indent=1))


def load_model(path: str | Path, device: torch.device | str = "cpu") -> IMDer:
    """A model that :func:`save_model` wrote, in eval mode."""
    path = Path(path)
    try:
        config = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        config["unet_channels"] = tuple(config["unet_channels"])
        config["rules"] = Rules(**config["rules"])
        model = IMDer(ModelConfig(**config))
        model.load_state_dict(load_file(path))
    except (OSError, ValueError, TypeError, RuntimeError, KeyError) as error:
        raise UserError(f"no model can be read from {path} ({error!s:.200})") from None
    return model.to(device).eval()
