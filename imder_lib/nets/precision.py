"""Precision of matrix products and convolutions of float32 tensors."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def usable(precision: str, device: torch.device) -> str:
    """The precision that a device computes in: "tf32" exists on CUDA only, elsewhere it is "float32"."""
    return "float32" if precision == "tf32" and device.type != "cuda" else precision


@contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """Compute products and convolutions in "float32", "tf32" or "bfloat16" inside the block.

    "tf32" rounds their inputs to 10 bits of mantissa, "bfloat16" to 7 (autocast). "float32" has to be set, too: by
    default, PyTorch computes convolutions on CUDA in TF32.
    """
    kinds = (torch.backends.cuda.matmul, torch.backends.cudnn.conv) if device.type == "cuda" else ()
    before = [kind.fp32_precision for kind in kinds]
    for kind in kinds:
        kind.fp32_precision = "tf32" if precision == "tf32" else "ieee"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            yield
    finally:
        for kind, value in zip(kinds, before, strict=True):
            kind.fp32_precision = value
