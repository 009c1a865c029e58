"""Profiles: how much data, how large a model, how long a training."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from imder_lib.errors import unknown


@dataclass(frozen=True)
class Profile:
    """A budget."""

    sizes: Mapping[str, int]  # split -> maximum number of samples; a split that is not named keeps all
    model: Mapping[str, object]  # changes to the model preset
    train: Mapping[str, object]  # changes to the training preset
    draws: int  # recoveries of each sample in evaluation
    steps: int = 0  # network calls of the sampler; 0: the preset's
    seeds: str = "1"  # of a run that names none
    grid: bool = False  # imder reproduce trains and tests the paper's whole grid before the notebooks


PROFILES = MappingProxyType(
    {
        # checks that everything runs; its numbers mean nothing.
        "smoke": Profile(
            sizes={"train": 64, "valid": 32, "test": 48},
            model={"fusion": {"layers": 1}, "unet": {"channels": (64, 64, 64), "refiner_blocks": 2},
                   "joint": {"channels": 32, "blocks": 2}},
            train={"fusion": {"epochs": 2}, "diffusion": {"epochs": 1}, "adapt": {"epochs": 1, "patterns": 1}},
            draws=2,
            steps=4,
        ),
        # minutes on two cores: one fusion layer for four, a narrower joint net, a short training.
        "quick": Profile(
            sizes={},
            model={"fusion": {"layers": 1}, "joint": {"channels": 64, "blocks": 5}},
            train={"fusion": {"epochs": 30}, "diffusion": {"epochs": 100, "least_steps": 3000},
                   # a larger rate than the preset's, because the stage is shorter
                   "adapt": {"epochs": 8, "lr": 2e-3, "least_steps": 1000}, "patience": 2, "early_stop": 5},
            draws=8,
        ),
        # the released sizes, trained until it no longer improves: hours on two cores, and the grid of the paper.
        "full": Profile(
            sizes={},
            model={},
            train={"diffusion": {"epochs": 200, "least_steps": 8000}},
            draws=16,
            seeds=",".join(map(str, range(1111, 1120))),
            grid=True,
        ),
    }
)  # fmt: skip


def find_profile(name: str) -> Profile:
    """A profile by name."""
    if name not in PROFILES:
        raise unknown("unknown profile", name, PROFILES)
    return PROFILES[name]
