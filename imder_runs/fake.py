"""Files of random numbers with the schema and size of MOSI and MOSEI: for rehearsals, never for results."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from imder_lib.config import WIDTHS
from imder_lib.data.missing import availability
from imder_lib.data.mmsa import SIZES
from imder_lib.data.schema import Counts, MultimodalData
from imder_lib.errors import UserError
from imder_lib.files import written_whole

PREFIX = "fake_"  # of the ids
WORDS, CLS, SEP = 30522, 101, 102  # the vocabulary of BERT-base-uncased, and the ids of [CLS] and [SEP]


def is_fake(data: MultimodalData) -> bool:
    """Whether the data are random numbers written by :func:`write_fake`."""
    return data.train.ids[0].startswith(PREFIX)


def write_fake(
    name: str, path: str | Path, *, sizes: Counts = None, steps: int = 50, seed: int = 0, missing: float = 0.0
) -> Path:
    """Write a pickle with every key of the published aligned_50.pkl of "mosi" or "mosei", filled with random numbers.

    ``sizes``, split -> N, are the published ones unless given; T = ``steps``. ``missing`` is the share of modalities,
    at most 2/3, that samples lack by key "available"; NaN stands there. A UserError for another name, a share out of
    range, or a file that exists or cannot be written.
    """
    if name not in SIZES:
        raise UserError(f"unknown data set {name!r}: expected one of {sorted(SIZES)}")
    path, content = Path(path), {}
    with written_whole(path, new=True) as part:
        for i, (split, n) in enumerate((SIZES[name] | dict(sizes or {})).items()):
            made = content[split] = _split(name, split, n, steps, np.random.default_rng([seed, i]))
            if missing:
                made["available"] = availability("random", n, list(WIDTHS[name]), missing, seed, made["id"]).numpy()
                for m, has in zip(WIDTHS[name], made["available"].T, strict=True):
                    made[m][~has] = np.nan
        with part.open("wb") as file:
            pickle.dump(content, file, protocol=5)  # protocol 5 writes arrays without copying them first
    return path


def _split(name: str, split: str, n: int, steps: int, rng: np.random.Generator) -> dict[str, Any]:
    words = rng.integers(min(3, steps), steps + 1, n)  # including [CLS] and [SEP]
    labels = (np.round(rng.uniform(-9, 9, n)) / 3).astype(np.float32)  # the mean of three votes
    sign = np.sign(labels).astype(int)
    valid = np.arange(steps) < words[:, None]  # (N, T)
    ids = rng.integers(1000, WORDS, (n, steps))
    ids[:, 0], ids[np.arange(n), words - 1] = CLS, SEP
    features = {m: rng.standard_normal((n, steps, D), dtype=np.float32) for m, D in WIDTHS[name].items()}
    for x in features.values():
        x *= valid[..., None]
    features["audio"][0, 0, 0] = -np.inf  # the published files have it too: log(0)
    return features | {
        "raw_text": np.array([f"fake sample {i}" for i in range(n)]),
        "id": np.array([f"{PREFIX}{split}_{i // 8}$_${i % 8}" for i in range(n)]),
        "text_bert": np.stack([ids * valid, valid, np.zeros_like(ids)], axis=1).astype(np.float32),
        "annotations": np.array(["Negative", "Neutral", "Positive"])[sign + 1],
        "classification_labels": (sign + 1).astype(np.float32),
        "regression_labels": labels,
        "audio_lengths": words.tolist(),
        "vision_lengths": words.tolist(),
    }
