"""Pretraining, text routes, and pretrained models of the kit and of the authors."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import tiny_model
from golden import released_state
from transformers import BertConfig, BertModel

from imder_lib import IMDer, UserError, availability, changed, fit, load_data, load_released, model_preset
from imder_lib.diffusion.noise import derive_seed
from imder_lib.experiment import trainer as trainer_module
from imder_lib.model.bert import last_hidden
from imder_runs import text as text_module
from imder_runs.comparison import train_compared
from imder_runs.fake import write_fake
from imder_runs.pretrain import like_pretrained, load_pretrained, pretrain, pretrained_bert, read_pretrained
from imder_runs.setup import start_run
from imder_runs.text import bert_features, build_bert

WIDTHS = {"text": 12, "audio": 5, "vision": 20}


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "mosi.pkl"
    return load_data(write_fake("mosi", path, sizes={"train": 20, "valid": 8, "test": 6}, steps=10))


def tiny_bert(seed=0):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
    return BertModel(BertConfig(**sizes, hidden_dropout_prob=0.1), add_pooling_layer=False).eval()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_features_of_frozen_bert_are_computed_once(fake, tmp_path, monkeypatch):
    bert = tiny_bert()
    data = bert_features(fake, bert, tmp_path)
    assert data.widths == WIDTHS
    batch = data.test.batch([4, 1])
    torch.testing.assert_close(batch.features["text"], last_hidden(bert, fake.test.tokens([4, 1])))
    assert batch.lengths["text"].tolist() == fake.test.lengths["text"][[4, 1]].tolist()
    monkeypatch.setattr(text_module, "last_hidden", None)  # a second pass would fail
    again = bert_features(fake, bert, tmp_path)
    np.testing.assert_array_equal(again.train.features["text"], data.train.features["text"])
    with pytest.raises(TypeError):
        bert_features(fake, tiny_bert(seed=1), tmp_path)  # other weights: another key


def test_bert_gives_no_features_to_samples_without_text(tiny_config, tmp_path):
    path = write_fake("mosi", tmp_path / "mine.pkl", sizes={"train": 20, "valid": 8, "test": 6}, steps=10, missing=0.3)
    some, bert = load_data(path), tiny_bert()
    data = bert_features(some, bert, tmp_path / "cache")
    has = data.train.given(["text"])[:, 0]
    assert not has.all()
    assert torch.equal(data.train.batch().features["text"].ne(0).flatten(1).any(dim=1), has)
    pretrain(tiny_model(WIDTHS), some, tiny_config, tmp_path / "run", tmp_path / "p.safetensors", bert=bert)


def test_bert_needs_text_bert(data, tmp_path):
    with pytest.raises(UserError, match="no text_bert"):
        bert_features(data, tiny_bert(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_pretraining_is_the_fusion_stage_and_can_be_loaded(data, tiny_config, tmp_path):
    model = tiny_model()
    path = pretrain(model, data, tiny_config, tmp_path / "run", tmp_path / "pt" / "pretrained-x.safetensors")
    whole = fit(tiny_model(), data, tiny_config, tmp_path / "whole", until="fusion").model
    assert same(model.state_dict(), whole.state_dict())
    other = tiny_model(seed=5)
    before = {k: v.clone() for k, v in other.state_dict().items()}
    load_pretrained(other, read_pretrained(path))
    for k, v in other.state_dict().items():
        assert torch.equal(v, (model.state_dict() if k.startswith(("encoders.", "fusion.")) else before)[k]), k
    assert pretrained_bert(read_pretrained(path)) == {}


def test_finetuned_bert_has_its_own_learning_rate_and_is_stored(fake, tiny_config, tmp_path):
    bert, initial = tiny_bert(), tiny_bert().state_dict()
    path = pretrain(tiny_model(WIDTHS), fake, tiny_config, tmp_path / "run", tmp_path / "p.safetensors", bert=bert)
    moved = max(float((v - initial[k]).abs().max()) for k, v in bert.state_dict().items())
    assert 0 < moved < 4 * 2 * 1e-4 * 2  # four Adam steps of 1e-4 in two epochs; at lr 2e-3 they would be 20 times that
    built = build_bert(pretrained_bert(read_pretrained(path)))
    assert same(built.state_dict(), bert.state_dict())
    frozen = bert_features(fake, built, tmp_path / "cache")  # as for the next stages
    load_pretrained(tiny_model(frozen.widths), read_pretrained(path))
    with pytest.warns(UserWarning, match="text 'bert-frozen' takes the BERT's"):
        start_run("synthetic", "smoke", "1", tmp_path, create=False, pretrained=str(path))
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["checkpoint.pt", "history.csv"]


def test_finetuning_checks_its_folder_and_the_data_as_fit_does(fake, data, tiny_config, tmp_path):
    def run(model, data, config=tiny_config, resume=False):
        pretrain(model, data, config, tmp_path / "run", tmp_path / "p.safetensors", bert=tiny_bert(), resume=resume)

    with pytest.raises(UserError, match="no text_bert"):
        run(tiny_model(), data)
    with pytest.raises(UserError, match="vision 8 20"):
        run(tiny_model(), fake)
    run(tiny_model(WIDTHS), fake)
    with pytest.raises(UserError, match="resume=True"):
        run(tiny_model(WIDTHS), fake)
    with pytest.raises(UserError, match=r"other settings \(fusion\.epochs\)"):
        run(tiny_model(WIDTHS), fake, changed(tiny_config, fusion={"epochs": 9}), resume=True)


def test_finetuning_does_not_read_incomplete_samples(fake, tiny_config, tmp_path):
    config, found = replace(tiny_config, supervision="observed", rate=0.3), []
    incomplete = ~availability("random", 20, list(WIDTHS), 0.3, derive_seed(3, "observed"), fake.train.ids).all(dim=1)
    for spoilt in (False, True):
        splits = {k: replace(s, features={m: x.copy() for m, x in s.features.items()}) for k, s in fake.splits.items()}
        splits["train"].features["vision"][incomplete.numpy()] += 1e3 * spoilt
        model = tiny_model(WIDTHS)
        changed = replace(fake, splits=splits)
        pretrain(model, changed, config, tmp_path / str(spoilt), tmp_path / "p.safetensors", bert=tiny_bert())
        found.append(model.state_dict())
    assert 0 < incomplete.sum() < 20
    assert same(*found)


def test_interrupted_finetuning_gives_the_same_weights(fake, tiny_config, tmp_path, monkeypatch):
    def run(name, resume=False):
        return pretrain(
            tiny_model(WIDTHS), fake, tiny_config, tmp_path / name, tmp_path / f"{name}.safetensors", bert=tiny_bert(),
            resume=resume,
        )  # fmt: skip

    whole = run("whole")
    original = trainer_module.write_checkpoint

    def save_then_die(*args):
        original(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer_module, "write_checkpoint", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        run("cut")
    monkeypatch.setattr(trainer_module, "write_checkpoint", original)
    assert same(read_pretrained(run("cut", resume=True)), read_pretrained(whole))


def test_the_authors_checkpoint_can_be_loaded(tmp_path):
    torch.save({f"Model.{k}": v for k, v in released_state("mosi").items()}, tmp_path / "pretrained-mosi.pth")
    released = load_released(tmp_path / "pretrained-mosi.pth").state_dict()
    state = read_pretrained(tmp_path / "pretrained-mosi.pth")
    model = IMDer(model_preset("mosi", preset="released"))
    load_pretrained(model, state)
    assert same(model.state_dict(), released)
    kit = IMDer(like_pretrained(model_preset("mosi"), state))  # another recoverer: only encoders and fusion are loaded
    load_pretrained(kit, state)
    for k, v in kit.state_dict().items():
        if k.startswith("fusion.readout."):  # the released model has no readout
            assert not v.any()
            continue
        assert not k.startswith(("encoders.", "fusion.")) or torch.equal(v, released[k]), k


def test_a_pretrained_model_of_wrong_shape_raises(data, tiny_config, tmp_path):
    path = pretrain(tiny_model(), data, tiny_config, tmp_path / "run", tmp_path / "p.safetensors")
    with pytest.raises(UserError, match=r"encoders\.vision\.weight has shape \(16, 8, 3\), expected \(16, 20, 3\)"):
        load_pretrained(tiny_model(WIDTHS), read_pretrained(path))
    state = read_pretrained(path)
    del state["fusion.out.bias"]
    with pytest.raises(UserError, match=r"missing fusion\.out\.bias"):
        load_pretrained(tiny_model(), state)
    (tmp_path / "bad.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="no pretrained model can be read"):
        read_pretrained(tmp_path / "bad.safetensors")
    with pytest.raises(UserError, match="no checkpoint"):
        read_pretrained(tmp_path / "none.pth")


def test_a_folder_of_models_has_one_pretrained_model(data, tiny_config, tmp_path):
    states = []
    for seed in (1, 2):
        model = tiny_model(seed=seed)
        states.append({k: v for k, v in model.state_dict().items() if k.startswith(("encoders.", "fusion."))})
    config, train = tiny_model().config, changed(tiny_config, fusion={"epochs": 0})
    for state in (states[0], states[0]):
        train_compared("kit", data, config, train, tmp_path, until="fusion", pretrained=state)
    with pytest.raises(UserError, match="holds another pretrained model"):
        train_compared("kit", data, config, train, tmp_path, until="fusion", pretrained=states[1])
    train_compared("kit", data, config, tiny_config, tmp_path / "on", until="fusion", pretrained=states[0])  # trains on
