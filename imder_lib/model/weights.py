"""Checks of state dicts before they are loaded."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from imder_lib.errors import UserError

SHOWN = 5  # problems listed in an error


def check_fit(state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Raise a UserError that lists missing and extra names and wrong shapes of a state dict."""
    shapes = {k: tuple(v.shape) for k, v in state.items()}
    problems = [f"missing {k}" for k in expected if k not in shapes]
    problems += [f"extra {k}" for k in shapes if k not in expected]
    problems += [
        f"{k} has shape {shapes[k]}, expected {shape}" for k, shape in expected.items() if shapes.get(k, shape) != shape
    ]
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise UserError(f"{what} does not fit: {'; '.join(problems[:SHOWN])}{more}")


def check_finite(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise a UserError that names the first tensor with a value that is not finite."""
    for k, v in state.items():
        if not torch.isfinite(v).all():
            raise UserError(f"{path}: tensor {k} has values that are not finite (NaN): take another checkpoint")
