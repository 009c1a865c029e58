"""BERT as the text encoder. Its parameters are named as in transformers' BertModel."""

from torch import Tensor, nn

BERT_LR = 1e-4


def last_hidden(bert: nn.Module, tokens: Tensor) -> Tensor:
    """BERT's last hidden state (B, T, H) for tokens (B, 3, T): ids, mask, segments."""
    ids, mask, segments = tokens.unbind(dim=1)
    return bert(input_ids=ids, attention_mask=mask, token_type_ids=segments).last_hidden_state
