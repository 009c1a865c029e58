"""Recoverers by name. To add one: RECOVERERS["name"] = Class."""

from collections.abc import Callable

from imder_lib.config import ModelConfig
from imder_lib.errors import UserError
from imder_lib.model.diffusers import Diffusion, Network
from imder_lib.model.joint import JointDiffusion
from imder_lib.model.recovery import MeanFill, Recoverer, Regression, ZeroFill

RECOVERERS: dict[str, Callable[[ModelConfig], Recoverer]] = {
    "zero": ZeroFill,
    "mean": MeanFill,
    "regression": Regression,
    "network": Network,
    "diffusion": lambda config: (JointDiffusion if config.rules.net == "joint" else Diffusion)(config),
}


def make_recoverer(config: ModelConfig) -> Recoverer:
    """Build the recoverer that the configuration names."""
    if config.recoverer not in RECOVERERS:
        raise UserError(f"recoverer must be one of {list(RECOVERERS)}, got {config.recoverer!r}")
    return RECOVERERS[config.recoverer](config)
