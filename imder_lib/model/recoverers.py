"""Every recoverer by name. One more is one more entry: RECOVERERS["mine"] = Mine."""

from collections.abc import Callable

from imder_lib.config import ModelConfig
from imder_lib.errors import UserError
from imder_lib.model.diffusers import Diffusion, Network
from imder_lib.model.joint import JointDiffusion
from imder_lib.model.recovery import MeanFill, Recoverer, Regression, ZeroFill


def diffusion(config: ModelConfig) -> Recoverer:
    """By the rules' net: the release's U-Nets, or the joint net."""
    return (JointDiffusion if config.rules.net == "joint" else Diffusion)(config)


RECOVERERS: dict[str, Callable[[ModelConfig], Recoverer]] = {
    "zero": ZeroFill,
    "mean": MeanFill,
    "regression": Regression,
    "network": Network,
    "diffusion": diffusion,
}


def make_recoverer(config: ModelConfig) -> Recoverer:
    """The recoverer that a configuration names."""
    if config.recoverer not in RECOVERERS:
        raise UserError(f"recoverer must be one of {list(RECOVERERS)}, got {config.recoverer!r}")
    return RECOVERERS[config.recoverer](config)
