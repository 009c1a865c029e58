"""BERT from a released checkpoint or a local folder, with strict names and without a download."""

import builtins
import functools

import pytest
import torch
from golden import released_state as _released_state
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from imder_lib import UserError, load_released
from imder_lib.model.bert import last_hidden
from imder_lib.model.released import read_released
from imder_runs.pretrain import pretrained_bert
from imder_runs.text import build_bert, local_bert

SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 1}
SIZES |= {"intermediate_size": 24, "max_position_embeddings": 12}
TOKENS = torch.tensor([[[5, 7, 9, 0], [1, 1, 1, 0], [0, 0, 0, 0]], [[1, 2, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0]]])

released_state = functools.cache(_released_state)


def tiny_bert(seed=0, pooler=True):
    torch.manual_seed(seed)
    return BertModel(BertConfig(**SIZES), add_pooling_layer=pooler).eval()


def checkpoint(bert, prefix="Model.", name="text_model.model."):
    """A checkpoint as released in 2023: prefix, BERT under text_model.model., with a position_ids buffer."""
    state = dict(released_state("mosi"))
    state |= {name + k: v for k, v in bert.state_dict().items()}
    state[name + "embeddings.position_ids"] = torch.arange(12)[None]
    return {prefix + k: v for k, v in state.items()}


@pytest.mark.parametrize("prefix", ["Model.", ""])
@pytest.mark.parametrize("name", ["text_model.model.", "text_model."])
def test_bert_from_a_checkpoint_gives_the_same_output(prefix, name, tmp_path):
    bert = tiny_bert()
    torch.save(checkpoint(bert, prefix, name), tmp_path / "x.pth")
    assert load_released(tmp_path / "x.pth").config.fusion.layers == 4
    built = build_bert(pretrained_bert(read_released(tmp_path / "x.pth")))
    torch.testing.assert_close(last_hidden(built, TOKENS), last_hidden(bert, TOKENS), rtol=0, atol=0)


@pytest.mark.parametrize("key", sorted(tiny_bert().state_dict()))
def test_missing_names_and_wrong_shapes_raise(key):
    state = tiny_bert().state_dict()
    with pytest.raises(UserError, match=f"missing {key}"):
        build_bert({k: v for k, v in state.items() if k != key})
    with pytest.raises(UserError, match=f"{key} has shape"):
        build_bert(state | {key: torch.zeros(40, 17)})


def test_extra_names_raise_and_the_pooler_is_optional():
    state = tiny_bert(pooler=False).state_dict()
    build_bert(state)
    with pytest.raises(UserError, match=r"extra encoder\.layer\.0\.adapter\.weight"):
        build_bert(state | {"encoder.layer.0.adapter.weight": torch.zeros(2)})


def test_a_local_folder(tmp_path):
    bert = tiny_bert()
    bert.save_pretrained(tmp_path / "bert")
    torch.testing.assert_close(last_hidden(local_bert(tmp_path / "bert"), TOKENS), last_hidden(bert, TOKENS))
    with pytest.raises(UserError, match=r"config\.json.*bert-base-uncased.*put them into .*nothing.*--download-bert"):
        local_bert(tmp_path / "nothing")
    (tmp_path / "bert" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no BERT that can be read"):
        local_bert(tmp_path / "bert")


def test_without_transformers_the_error_says_what_to_install(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kw):
        if name == "transformers":
            raise ImportError(name)
        return original(name, *args, **kw)

    state = tiny_bert().state_dict()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'imder-kit\[bert\]'"):
        build_bert(state)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(
    ("content", "message"),
    [(b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"), (bytes(99), "only zeros"), (b"", "is empty")],
)
def test_weights_that_are_no_weights(tmp_path, name, content, message):
    tiny_bert().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: it .*{message}") as stop:
        local_bert(tmp_path)
    assert "weights_only" not in str(stop.value)


def test_weights_that_are_missing_are_not_drawn_at_random(tmp_path):
    bert = tiny_bert()
    bert.save_pretrained(tmp_path)
    kept = {k: v.clone() for k, v in bert.state_dict().items() if not k.startswith("encoder.layer.1.attention")}
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"no whole BERT: missing encoder\.layer\.1\.attention"):
        local_bert(tmp_path)
