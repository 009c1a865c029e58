"""Loading of released checkpoints: a table of rules maps the kit's names to the released ones, which must all fit."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from imder_lib.config import ModelConfig, model_preset
from imder_lib.errors import UserError, file_fault
from imder_lib.model.imder import IMDer
from imder_lib.model.weights import check_finite, check_fit

LETTER = {"text": "l", "audio": "a", "vision": "v"}
IGNORED = re.compile(r"(\.version|\._float_tensor|\.position_ids)$")  # buffers of fairseq and of BERT
PREFIX = re.compile(r"^(module\.)?(Model\.)?")  # of DataParallel, and of the authors' wrapper
NESTED = ("state_dict", "model_state_dict", "model")  # where training checkpoints keep the weights
BERT = re.compile(r"^text_model\.(model\.)?")


def name_rules(config: ModelConfig) -> list[tuple[str, str]]:
    """Pairs (pattern in a name of the kit, replacement); applied in this order, they give the released name."""
    rules = [(rf"\b{modality}\b", letter) for modality, letter in LETTER.items()]
    rules += [
        (r"^encoders\.(\w)", r"proj_\1"),
        (r"^recoverer\.conditions\.(\w)\+(\w)", r"cat_\1\2"),
        (r"^fusion\.cross\.(\w)<(\w)", r"trans_\1_with_\2"),
        (r"^fusion\.memory\.(\w)", r"trans_\1_mem"),
        (r"^fusion\.out\.", "out_layer."),
        (r"^fusion\.", ""),
        # refiners
        (r"^refiners\.(\w)", r"rec_\1"),
        (r"\.head\.", ".0."),
        (r"\.tail\.", ".2."),
        (r"\.close\.", f".1.body.{config.unet.refiner_blocks}."),
        (r"\.blocks\.", ".1.body."),
        (r"\.conv1\.", ".body.0."),
        (r"\.conv2\.", ".body.2."),
        (r"\.squeeze\.", ".body.3.conv_du.0."),
        (r"\.excite\.", ".body.3.conv_du.2."),
        # score nets
        (r"^recoverer\.score_nets\.(\w)", r"score_\1"),
        (r"\.embed\.W", ".embed.0.W"),
        (r"\.embed\.linear\.", ".embed.1."),
    ]
    levels = 1 + len(config.unet.channels)  # numbered 1 to 4 down, 4 to 1 up; their dense layers 1 to 8
    ways = [(rf"\.down\.{i}", "", i + 1, i + 1) for i in range(levels)]
    ways += [(rf"\.up\.{i}", "t", levels - i, levels + i + 1) for i in range(levels)]
    for way, t, n, dense in ways:
        rules += [
            (rf"{way}\.attention\.", f".attention_{t}{n}."),
            (rf"{way}\.conv(_cond)?\.", rf".{t}conv{n}\1."),
            (rf"{way}\.time\.", f".dense{dense}.dense."),
            (rf"{way}\.norm\.", f".{t}gnorm{n}."),
        ]
    return [
        *rules,
        # encoders of fusion and of score nets
        (r"\.attention\.", ".self_attn."),
        (r"\.norm1\.", ".layer_norms.0."),
        (r"\.norm2\.", ".layer_norms.1."),
        (r"\.norm\.", ".layer_norm."),
    ]


def released_name(name: str, config: ModelConfig) -> str:
    """Released name of a parameter of the kit."""
    for pattern, replacement in name_rules(config):
        name = re.sub(pattern, replacement, name)
    return name


def fill_released(model: IMDer, state: Mapping[str, Tensor]) -> None:
    """Load a state dict from :func:`read_released`; its BERT is left out.

    A UserError for missing or extra names, or wrong shapes; the model is unchanged then.
    """
    own = {released_name(k, model.config): (k, tuple(v.shape)) for k, v in model.named_parameters()}
    given = {k: v for k, v in state.items() if not BERT.match(k)}
    check_fit(given, {k: shape for k, (_, shape) in own.items()}, "the checkpoint")
    model.load_state_dict({own[k][0]: v for k, v in given.items()}, strict=False)  # buffers are not in it


def read_released(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict written by torch.save, alone or in a training checkpoint, without prefixes and old buffers.

    A UserError for no such file, no state dict, or values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}: put the authors' file there (see pt/README.md)")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        raise UserError(f"{path} is no checkpoint that can be read: {file_fault(path)}") from None
    for key in NESTED:
        state = state[key] if isinstance(state, dict) and isinstance(state.get(key), dict) else state
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} holds no state dict: expected a dict of tensors by name")
    state = {PREFIX.sub("", k): v for k, v in state.items() if not IGNORED.search(k)}
    check_finite(state, path)
    return state


def load_released(path: str | Path, preset: str = "mosi") -> IMDer:
    """Load the released model for preset "mosi" or "mosei" from the authors' checkpoint, in eval mode, on the CPU."""
    model = IMDer(model_preset(preset, preset="released"))
    fill_released(model, read_released(path))
    return model.eval()
