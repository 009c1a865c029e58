"""Deterministic values for a released checkpoint and its inputs, as used for golden_mosi.npz."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parent / "data"


def numbers(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal numbers seeded by the name."""
    return np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)


def released_state(dataset: str) -> dict[str, torch.Tensor]:
    """A full released state dict of ``dataset`` with deterministic values."""
    state = {}
    for line in gzip.decompress((DATA / f"state_dict_{dataset}.tsv.gz").read_bytes()).decode().splitlines():
        name, dims, _ = line.split("\t")
        shape = tuple(int(d) for d in dims.split("x")) if dims else ()
        if name.endswith((".version", "._float_tensor")):
            state[name] = torch.zeros(shape)
            continue
        z = numbers(name, shape)
        if name.endswith("embed.0.W"):
            z = 30 * z
        elif len(shape) > 1:
            z = z / np.sqrt(np.prod(shape[1:]))
        elif name.endswith("weight"):
            z = 1 + 0.1 * z
        else:
            z = 0.1 * z
        state[name] = torch.from_numpy(z.astype(np.float32))
    return state


def inputs() -> dict[str, torch.Tensor]:
    shapes = {"text": (4, 50, 768), "audio": (4, 50, 5), "vision": (4, 50, 20), "label": (4, 1)}
    shapes |= {"score_x": (4, 32, 48), "score_cond": (4, 32, 48)}
    return {k: torch.from_numpy(numbers(k, s).astype(np.float32)) for k, s in shapes.items()}
