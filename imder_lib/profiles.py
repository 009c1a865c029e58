"""Profiles: how much data, how large a model, how long a training."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from imder_lib.diffusion.samplers import Sampler
from imder_lib.errors import UserError


@dataclass(frozen=True)
class Profile:
    """A budget: how much data, how large a model, how long a training.

    Attributes:
        sizes: of the synthetic splits; empty: the process's own.
        limit: at most so many samples of each split of a file; 0: all.
        model: changes to the model preset.
        train: changes to the training preset.
        draws: recoveries of each sample in evaluation.
    """

    sizes: Mapping[str, int]
    limit: int
    model: Mapping[str, object]
    train: Mapping[str, object]
    draws: int = 1


PROFILES = MappingProxyType(
    {
        # does everything run? Numbers mean nothing.
        "smoke": Profile(
            sizes={"train": 64, "valid": 32, "test": 48},
            limit=64,
            model={"layers": 1, "sampler": Sampler(steps=4), "unet_channels": (32, 64, 64, 64), "refiner_blocks": 2,
                   "joint_channels": 32, "joint_blocks": 2},
            train={"fusion_epochs": 2, "diffusion_epochs": 1, "adapt_epochs": 1, "cache_patterns": 1},
            draws=2,
        ),
        # minutes on two cores: two fusion layers for four, a narrower joint net, a short training.
        "quick": Profile(
            sizes={},
            limit=0,
            model={"layers": 2, "joint_channels": 64, "joint_blocks": 6},
            train={"fusion_epochs": 30, "diffusion_epochs": 60, "adapt_epochs": 4, "cache_patterns": 2,
                   "patience": 2, "early_stop": 5},
            draws=8,
        ),
        # quick's fusion, a larger recoverer, trained until it no longer improves: of the sample quality table.
        "full": Profile(
            sizes={},
            limit=0,
            model={"layers": 2, "joint_channels": 128, "joint_blocks": 8},
            train={"fusion_epochs": 10, "diffusion_epochs": 200, "adapt_epochs": 4, "cache_patterns": 2, "patience": 2},
            draws=16,
        ),
        # the released sizes and budgets: an hour for each seed on two cores under the kit's rules.
        "paper": Profile(sizes={}, limit=0, model={}, train={"diffusion_epochs": 200}, draws=16),
    }
)  # fmt: skip


def profile(name: str) -> Profile:
    """A profile by name."""
    if name not in PROFILES:
        raise UserError(f"unknown profile {name!r}: expected one of {list(PROFILES)}")
    return PROFILES[name]
