"""Text routes: the text features of the file, or BERT features of text_bert, frozen or fine-tuned."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from imder_lib.data.schema import MultimodalData, Split
from imder_lib.errors import UserError, unknown
from imder_lib.experiment.checkpoint import written_whole
from imder_lib.model.bert import last_hidden, weights_hash

ROUTES = ("features", "bert-frozen", "bert-finetune")


def check_route(route: str) -> None:
    if route not in ROUTES:
        raise unknown("unknown text route", route, ROUTES)


def bert_features(data: MultimodalData, bert: nn.Module, cache: str | Path, batch_size: int = 64) -> MultimodalData:
    """Replace the text features by BERT's last hidden state (N, T, H) of text_bert.

    The features of each split are computed once, stored in ``cache`` under the hashes of data and weights, and
    memory-mapped.

    Raises:
        UserError: the data have no text_bert, or the cache cannot be written.
    """
    if "text" not in data.modalities:
        raise UserError(f"text through BERT needs a modality 'text', the data have {list(data.modalities)}")
    for split in data.splits.values():
        split.tokens([0])  # raises if there are none
    folder = Path(cache) / f"{data.sha256[:16]}-{weights_hash(bert)[:16]}"
    splits = {}
    for name, split in data.splits.items():
        path = folder / f"{name}-{len(split)}.npy"
        if not path.exists():
            _write(path, split, bert.eval(), batch_size)
        features = {m: np.load(path, mmap_mode="r") if m == "text" else x for m, x in split.features.items()}
        mask = split.text_bert[:, 1] > 0
        lengths = split.lengths | {"text": np.where(mask, np.arange(1, mask.shape[1] + 1), 0).max(axis=1).clip(min=1)}
        scale = None if split.scale is None else {m: s for m, s in split.scale.items() if m != "text"}
        steps = features["text"].shape[1]
        splits[name] = replace(split, features=features, lengths=lengths, scale=scale, steps=steps)
    return MultimodalData(data.name, splits, data.sha256, data.process)


@torch.no_grad()
def _write(path: Path, split: Split, bert: nn.Module, batch_size: int) -> None:
    device, shape = next(bert.parameters()).device, (len(split), split.text_bert.shape[-1], bert.config.hidden_size)
    print(f"BERT: {len(split)} samples, stored in {path}", flush=True)
    with written_whole(path) as part:
        array = np.lib.format.open_memmap(part, "w+", np.float32, shape)
        for start in range(0, len(split), batch_size):
            rows = np.arange(start, min(start + batch_size, len(split)))
            array[rows] = last_hidden(bert, split.tokens(rows).to(device)).float().cpu().numpy()
        array.flush()
