"""Files of random numbers with the exact schema and size of MOSI and MOSEI: for rehearsals, never for results."""

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imder_lib.config import WIDTHS
from imder_lib.data.schema import FAKE
from imder_lib.errors import UserError

SIZES = {
    "mosi": {"train": 1284, "valid": 229, "test": 686},
    "mosei": {"train": 16326, "valid": 1871, "test": 4659},
}
STEPS = 50
WORDS = 30522  # of BERT-base-uncased
CLS, SEP = 101, 102


class _Late:
    """An array that is made only when the pickler reaches it, and dropped after."""

    def __init__(self, make: Callable[[], np.ndarray]) -> None:
        self.make = make

    def __reduce_ex__(self, protocol: int) -> Any:
        return self.make().__reduce_ex__(protocol)


def write_fake(
    name: str, path: str | Path, *, sizes: Mapping[str, int] | None = None, steps: int = STEPS, seed: int = 0
) -> Path:
    """Write a pickle with every key of the original aligned_50.pkl, filled with random numbers.

    Args:
        name: "mosi" or "mosei".
        path: a new file; at most one array (and its bytes) is in memory at a time.
        sizes: split -> N; the original's if None.
        steps: T.
        seed: of the numbers.

    Raises:
        UserError: unknown name, or a file that exists or cannot be written.
    """
    if name not in SIZES:
        raise UserError(f"unknown data set {name!r}: expected one of {sorted(SIZES)}")
    path = Path(path)
    if path.exists():
        raise UserError(f"{path} exists already: name a new file, or remove it first")
    sizes = SIZES[name] | dict(sizes or {})
    content = {s: _split(name, s, n, steps, np.random.default_rng([seed, i])) for i, (s, n) in enumerate(sizes.items())}
    part = path.with_name(f".{path.name}.part{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            pickler = pickle.Pickler(file, protocol=4)
            pickler.fast = True  # no memo, which would keep every array alive
            pickler.dump(content)
        part.rename(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return path


def _split(name: str, split: str, n: int, steps: int, rng: np.random.Generator) -> dict[str, Any]:
    words = rng.integers(min(3, steps), steps + 1, n)  # with [CLS] and [SEP]
    labels = (np.round(rng.uniform(-9, 9, n)) / 3).astype(np.float32)  # a mean of three votes
    sign = np.sign(labels).astype(int)
    out: dict[str, Any] = {
        "raw_text": np.array([f"fake sample {i}" for i in range(n)]),
        "id": np.array([f"{FAKE}{split}_{i // 8}$_${i % 8}" for i in range(n)]),
        "text_bert": _tokens(words, steps, rng),
        "annotations": np.array(["Negative", "Neutral", "Positive"])[sign + 1],
        "classification_labels": (sign + 1).astype(np.float32),
        "regression_labels": labels,
        "audio_lengths": words.tolist(),
        "vision_lengths": words.tolist(),
    }
    for m, width in WIDTHS[name].items():
        out[m] = _Late(lambda m=m, width=width: _frames(m, words, (n, steps, width), np.random.default_rng(words[:8])))
    return out


def _tokens(words: np.ndarray, steps: int, rng: np.random.Generator) -> np.ndarray:
    ids = rng.integers(1000, WORDS, (len(words), steps))
    ids[:, 0] = CLS
    ids[np.arange(len(words)), words - 1] = SEP
    mask = np.arange(steps) < words[:, None]
    return np.stack([ids * mask, mask, np.zeros_like(ids)], axis=1).astype(np.float32)


def _frames(modality: str, words: np.ndarray, shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal(shape, dtype=np.float32)
    for i, n in enumerate(words):
        x[i, n:] = 0
    if modality == "audio":
        x[0, 0, 0] = -np.inf  # as in the originals: a logarithm of 0
    return x
