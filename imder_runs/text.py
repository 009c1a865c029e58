"""Text routes: the text features of the file, or BERT features of text_bert, frozen or fine-tuned."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from imder_lib.data.schema import MultimodalData, Split
from imder_lib.errors import UserError, file_fault, unknown
from imder_lib.files import written_whole
from imder_lib.model.bert import last_hidden
from imder_lib.model.weights import SHOWN, check_finite, check_fit
from imder_runs.locks import held

HEAD_WIDTH = 64  # of all published BERTs; a checkpoint does not store the number of heads
HUB_NAME = "bert-base-uncased"
FILES = "config.json and model.safetensors (or pytorch_model.bin)"
ROUTES = ("features", "bert-frozen", "bert-finetune")


def check_route(route: str) -> None:
    if route not in ROUTES:
        raise unknown("unknown text route", route, ROUTES)


def bert_sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Sizes of a BERT from the shapes of its state dict; a size is 1 if its tensor is missing.

    A width that several tensors share is the most frequent value, so :func:`check_fit` can report a single wrong one.
    """

    def rows(pattern: str) -> int:
        found = Counter(v.shape[0] for k, v in state.items() if re.fullmatch(pattern, k) and v.ndim)
        return found.most_common(1)[0][0] if found else 1

    hidden = rows(r".*LayerNorm\.(weight|bias)")
    layers = [int(m[1]) for k in state if (m := re.match(r"encoder\.layer\.(\d+)\.", k))]
    return {
        "vocab_size": rows(r"embeddings\.word_embeddings\.weight"),
        "hidden_size": hidden,
        "num_hidden_layers": max(layers, default=-1) + 1,
        "num_attention_heads": max(1, hidden // HEAD_WIDTH),
        "intermediate_size": rows(r".*\.intermediate\.dense\.(weight|bias)"),
        "max_position_embeddings": rows(r"embeddings\.position_embeddings\.weight"),
        "type_vocab_size": rows(r"embeddings\.token_type_embeddings\.weight"),
    }


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise UserError(
            "transformers is not installed and BERT needs it: pip install 'imder-kit[bert]', or use text 'features'"
        ) from None
    return transformers


def build_bert(state: Mapping[str, Tensor]) -> nn.Module:
    """Build a BERT in eval mode from a state dict with standard names, without a download.

    Raises:
        UserError: missing or extra names, or wrong shapes. The pooler may be absent, but not in part.
    """
    library, pooler = _transformers(), any(k.startswith("pooler.") for k in state)
    bert = library.BertModel(library.BertConfig(**bert_sizes(state)), add_pooling_layer=pooler)
    check_fit(state, {k: tuple(v.shape) for k, v in bert.named_parameters()}, "the BERT of the checkpoint")
    bert.load_state_dict(dict(state), strict=False)  # it holds no buffers
    return bert.eval()


def local_bert(folder: str | Path, *, download: bool = False) -> nn.Module:
    """Load BERT from a folder as on the model hub (:data:`FILES`), in eval mode.

    Args:
        folder: of the files.
        download: if the folder has no BERT, download bert-base-uncased from the hub into it.

    Raises:
        UserError: no BERT in the folder, or it cannot be read or downloaded.
    """
    folder, Bert = Path(folder), _transformers().BertModel
    if not (folder / "config.json").is_file():
        if not download:
            raise UserError(
                f"no BERT in {folder}: get {FILES} of {HUB_NAME} from the model hub and put them into {folder}, or ask "
                "for the download by --download-bert"
            )
        try:
            Bert.from_pretrained(HUB_NAME).save_pretrained(folder)
        except OSError as error:
            raise UserError(
                f"{HUB_NAME} cannot be downloaded ({error!s:.120}): get {FILES} elsewhere and put them into {folder}"
            ) from None
    try:
        bert, found = Bert.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except Exception as error:  # of several libraries, with their own advice
        weights = [p for p in (folder / "model.safetensors", folder / "pytorch_model.bin") if p.is_file()]
        known = weights and "config" not in str(error)
        fault = f"{weights[0].name}: {file_fault(weights[0])}" if known else f"{error!s:.120}"
        raise UserError(f"{folder} holds no BERT that can be read ({fault}): expected {FILES}") from None
    if missing := sorted(k for k in found["missing_keys"] if not k.startswith("pooler.")):
        raise UserError(f"{folder} holds no whole BERT: missing {', '.join(missing[:SHOWN])}, expected {FILES}")
    check_finite(bert.state_dict(), folder)
    return bert.eval()


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
            with held(folder, "another process computes BERT's features"):  # the cells of a sweep begin together
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


def weights_hash(bert: nn.Module) -> str:
    """SHA-256 of all names and values of the state dict."""
    digest = hashlib.sha256()
    for name, value in sorted(bert.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
