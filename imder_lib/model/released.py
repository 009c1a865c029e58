"""Loading of released checkpoints.

A table of rules maps the kit's parameter names to the released ones. All names and shapes must fit.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from imder_lib.config import model_preset
from imder_lib.errors import UserError, file_fault
from imder_lib.model.bert import check_finite, check_fit
from imder_lib.model.imder import IMDer

LETTER = {"text": "l", "audio": "a", "vision": "v"}
MODALITY = "(text|audio|vision)"
IGNORED = re.compile(r"(\.version|\._float_tensor|\.position_ids)$")  # buffers of fairseq and of BERT
PREFIX = re.compile(r"^(module\.)?(Model\.)?")  # of DataParallel, and of the authors' wrapper
NESTED = ("state_dict", "model_state_dict", "model")  # where training checkpoints keep the weights
BERT = re.compile(r"^text_model\.(model\.)?")

# Kit name -> released name, applied in order; {0}, {1} are the letters of the modalities.
_RULES: list[tuple[str, str]] = [
    (rf"^encoders\.{MODALITY}\.", "proj_{0}."),
    (rf"^recoverer\.conditions\.{MODALITY}\+{MODALITY}\.", "cat_{0}{1}."),
    (rf"^fusion\.cross\.{MODALITY}<{MODALITY}\.", "trans_{0}_with_{1}."),
    (rf"^fusion\.memory\.{MODALITY}\.", "trans_{0}_mem."),
    (r"^fusion\.(proj1|proj2)\.", r"\1."),
    (r"^fusion\.out\.", "out_layer."),
    (rf"^refiners\.{MODALITY}\.", "rec_{0}."),
    (rf"^recoverer\.score_nets\.{MODALITY}\.", "score_{0}."),
]
_ENCODER = [
    ("attention.in_proj_", "self_attn.in_proj_"),
    ("attention.out_proj.", "self_attn.out_proj."),
    ("norm1.", "layer_norms.0."),
    ("norm2.", "layer_norms.1."),
]
_REFINER = [
    ("head.", "0."),
    ("tail.", "2."),
    ("conv1.", "body.0."),
    ("conv2.", "body.2."),
    ("squeeze.", "body.3.conv_du.0."),
    ("excite.", "body.3.conv_du.2."),
]


def _encoder_name(rest: str) -> str:
    for kit, released in _ENCODER:
        rest = rest.replace(kit, released)
    return re.sub(r"^norm\.", "layer_norm.", rest)


def _refiner_name(rest: str, blocks: int) -> str:
    rest = re.sub(r"^close\.", f"1.body.{blocks}.", rest)
    match = re.match(r"blocks\.(\d+)\.(.*)", rest)
    prefix, rest = (f"1.body.{match[1]}.", match[2]) if match else ("", rest)
    for kit, released in _REFINER:
        if rest.startswith(kit):
            rest = released + rest[len(kit) :]
            break
    return prefix + rest


def _score_name(rest: str, levels: int) -> str:
    if rest.startswith("embed."):
        return rest.replace("embed.W", "embed.0.W").replace("embed.linear.", "embed.1.")
    way, i, part, rest = re.match(r"(down|up)\.(\d+)\.(conv|conv_cond|attention|time|norm)\.(.*)", rest).groups()
    down = way == "down"
    n = int(i) + 1 if down else levels - int(i)  # the release numbers levels 1..4 down, 4..1 up
    if part == "attention":
        return f"attention_{'' if down else 't'}{n}.{_encoder_name(rest)}"
    if part == "time":
        return f"dense{n if down else levels + int(i) + 1}.dense.{rest}"
    if part == "norm":
        return f"{'gnorm' if down else 'tgnorm'}{n}.{rest}"
    return f"{'conv' if down else 'tconv'}{n}{'_cond' if part == 'conv_cond' else ''}.{rest}"


def released_name(name: str, model: IMDer) -> str:
    """Released name of a parameter of the kit."""
    for pattern, template in _RULES:
        if match := re.match(pattern, name):
            letters = [LETTER.get(g, g) for g in match.groups()]
            prefix, rest = match.expand(template).format(*letters), name[match.end() :]
            if name.startswith("recoverer.score_nets."):
                return prefix + _score_name(rest, len(model.config.unet_channels))
            if name.startswith("refiners."):
                return prefix + _refiner_name(rest, model.config.refiner_blocks)
            return prefix + (_encoder_name(rest) if prefix.startswith("trans_") else rest)
    raise KeyError(name)


def fill_released(model: IMDer, state: dict[str, Tensor]) -> None:
    """Load a released state dict into ``model``.

    The prefixes ``module.`` and ``Model.``, buffers of the released code and BERT (``text_model.``, see
    :func:`released_bert`) may be present or absent.

    Raises:
        UserError: missing or extra names, or wrong shapes; the model is unchanged.
    """
    state = _plain(state)
    own = dict(model.named_parameters())
    names = {released_name(k, model): k for k in own}
    expected = {k: tuple(own[name].shape) for k, name in names.items()}
    check_fit({k: v for k, v in state.items() if not BERT.match(k)}, expected, "the checkpoint")
    model.load_state_dict({name: state[k] for k, name in names.items()}, strict=False)  # buffers are not in it


def released_bert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """BERT's part of a released state dict, with standard names; empty if there is none."""
    return {BERT.sub("", k): v for k, v in _plain(state).items() if BERT.match(k)}


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = {PREFIX.sub("", k): v for k, v in state.items()}
    return {k: v for k, v in state.items() if not IGNORED.search(k)}


def read_released(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict written by torch.save, alone or in a training checkpoint (:data:`NESTED`).

    Raises:
        UserError: no such file, not a state dict, or values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}: put the authors' file there (see pt/README.md)")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        raise UserError(f"{path} is no checkpoint that can be read: {file_fault(path)}") from None
    for key in NESTED:  # a training checkpoint: weights beside the optimiser's state
        state = state[key] if isinstance(state, dict) and isinstance(state.get(key), dict) else state
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} holds no state dict: expected a dict of tensors by name")
    check_finite(_plain(state), path)
    return state


def load_released(path: str | Path, preset: str = "mosi") -> IMDer:
    """Load the released model from the authors' checkpoint, in eval mode, on the CPU.

    Args:
        path: checkpoint written by torch.save; read with weights_only=True.
        preset: "mosi" or "mosei".

    Raises:
        UserError: no such file, not a state dict, or names and shapes that do not fit.
    """
    model = IMDer(model_preset(preset, preset="released"))
    fill_released(model, read_released(path))
    return model.eval()
