"""BERT as the text encoder, built from a checkpoint without a download.

Parameters are named as in transformers' BertModel; transformers is an optional dependency (imder-kit[bert]).
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imder_lib.errors import UserError

HEAD_WIDTH = 64  # of all published BERTs; a checkpoint does not store the number of heads
BERT_LR = 1e-4
SHOWN = 5  # problems listed in an error


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


def transformers_library() -> Any:
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
    library, pooler = transformers_library(), any(k.startswith("pooler.") for k in state)
    bert = library.BertModel(library.BertConfig(**bert_sizes(state)), add_pooling_layer=pooler)
    check_fit(state, {k: tuple(v.shape) for k, v in bert.named_parameters()}, "the BERT of the checkpoint")
    bert.load_state_dict(dict(state), strict=False)  # it holds no buffers
    return bert.eval()


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


def last_hidden(bert: nn.Module, tokens: Tensor) -> Tensor:
    """BERT's last hidden state (B, T, H) for tokens (B, 3, T): ids, mask, segments."""
    ids, mask, segments = tokens.unbind(dim=1)
    return bert(input_ids=ids, attention_mask=mask, token_type_ids=segments).last_hidden_state
