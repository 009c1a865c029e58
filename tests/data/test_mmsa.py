"""Files in the MMSA schema: reading, checks and conversion."""

import collections
import os
import pickle
import warnings

import numpy as np
import pytest
import torch

from imder_lib import UserError, load_data
from imder_lib.data.load import PUBLISHED_SHA256
from imder_lib.data.schema import align
from imder_runs.convert import convert

N = {"train": 9, "valid": 4, "test": 5}


def content(T=(6, 6, 6), D=(8, 3, 4)):
    rng = np.random.default_rng(0)
    out = {}
    for split, n in N.items():
        shapes = dict(zip(("text", "audio", "vision"), zip(T, D, strict=True), strict=True))
        out[split] = {m: rng.standard_normal((n, *s)).astype(np.float32) for m, s in shapes.items()}
        out[split] |= {"regression_labels": rng.uniform(-3, 3, n).astype(np.float32), "raw_text": ["x"] * n}
        out[split]["id"] = [f"{split}$_${i}" for i in range(n)]
    return out


@pytest.fixture
def save(tmp_path):
    def write(value, protocol=4):
        path = tmp_path / "aligned.pkl"
        path.write_bytes(pickle.dumps(value, protocol=protocol))
        return path

    return write


@pytest.mark.parametrize("protocol", range(2, 6))
def test_reads_every_pickle_protocol(save, protocol):
    value = content()
    data = load_data(save(value, protocol))
    assert data.widths == {"text": 8, "audio": 3, "vision": 4}
    batch = data.test.batch([4, 0])
    assert batch.ids == ["test$_$4", "test$_$0"]
    np.testing.assert_array_equal(batch.features["audio"][0], value["test"]["audio"][4])


class Runs:
    def __reduce__(self):
        return os.system, ("touch PWNED",)


@pytest.mark.parametrize("payload", [Runs(), {"train": Runs()}, collections.Counter(), np.random.default_rng(0)])
def test_a_pickle_that_would_run_code_is_refused(save, payload, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="refused"):
        load_data(save(payload))
    assert not (tmp_path / "PWNED").exists()


def change(value, split, key, new):
    value[split][key] = new(value[split][key]) if callable(new) else new
    return value


def put(index, number):
    def edit(x):
        x = x.copy()
        x[index] = number
        return x

    return edit


BAD = {
    "nan": (lambda v: change(v, "valid", "vision", put((2, 1, 0), np.nan)), "valid.*vision.*row 2"),
    "inf in text": (lambda v: change(v, "test", "text", put((1, 0, 0), -np.inf)), "test.*text.*row 1"),
    "+inf audio": (lambda v: change(v, "test", "audio", put((1, 0, 0), np.inf)), "test.*audio.*row 1"),
    "nan label": (lambda v: change(v, "train", "regression_labels", put(3, np.nan)), "train.*regression_labels.*row 3"),
    "missing split": (lambda v: {k: v[k] for k in ("train", "test")}, "no split 'valid'"),
    "missing key": (lambda v: v["test"].pop("audio") is None or v, "test.*'audio' is missing"),
    "empty split": (lambda v: v | {"valid": {k: x[:0] for k, x in v["valid"].items()}}, "valid.*empty"),
    "unequal N": (lambda v: change(v, "train", "audio", lambda x: x[:-1]), "train.*audio.*8 rows.*9 ids"),
    "objects": (lambda v: change(v, "train", "text", lambda x: x.astype(object)), "train.*text.*object"),
    "strings": (lambda v: change(v, "train", "text", lambda x: x.astype(str)), "train.*text.*dtype"),
    "two axes": (lambda v: change(v, "train", "text", lambda x: x[:, 0]), r"train.*text.*\(9, 8\).*\(N, T, D\)"),
    "swapped axes": (lambda v: change(v, "train", "text", lambda x: x.swapaxes(1, 2)), r"train.*text.*\(N, D, T\)"),
    "time first": (lambda v: change(v, "train", "text", lambda x: x.swapaxes(0, 1)), "train.*text.*6 rows"),
    "id twice": (lambda v: change(v, "test", "id", lambda x: ["train$_$2", *x[1:]]), "test.*row 0.*train"),
    "other width": (lambda v: change(v, "test", "vision", lambda x: x[:, :, :2]), "test.*vision"),
    "id is no list": (lambda v: change(v, "test", "id", 5), "test.*'id'.*list of strings, got 5"),
    "nan length": (lambda v: change(v, "test", "audio_lengths", [1, 2, np.nan, 4, 5]), "test.*audio_lengths.*row 2"),
    "no dict": (lambda v: [1, 2], "expected a dict"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_content_raises_with_its_place(save, name):
    edit, message = BAD[name]
    with pytest.raises(UserError, match=message):
        load_data(save(edit(content())))


def test_all_axes_swapped(save):
    value = content()
    for part in value.values():
        for m in ("text", "audio", "vision"):
            part[m] = part[m].swapaxes(1, 2)
    with pytest.raises(UserError, match="swap"):
        load_data(save(value))


def test_truncated_and_absent_files(save, tmp_path):
    path = save(content())
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match="truncated"):
        load_data(path)
    with pytest.raises(UserError, match="no data at"):
        load_data(tmp_path / "nothing.pkl")
    with pytest.raises(UserError, match=r"mosi/aligned_50\.pkl"):
        load_data("mosi", root=tmp_path)


def test_minus_inf_audio_becomes_zero_and_unknown_keys_warn(save):
    value = change(content(), "train", "audio", put((1, 2, 0), -np.inf))
    value["train"]["mood"] = 1
    with pytest.warns(UserWarning, match="mood"):
        data = load_data(save(value))
    assert data.train.batch([1]).features["audio"][0, 2, 0] == 0


def test_named_data_must_have_the_published_widths(save, tmp_path):
    (tmp_path / "mosi").mkdir()
    save(content()).rename(tmp_path / "mosi" / "aligned_50.pkl")
    with pytest.raises(UserError, match="widths"):
        load_data("mosi", root=tmp_path)


@pytest.mark.parametrize(("name", "widths"), [("mosi", (768, 5, 20)), ("mosei", (768, 74, 35))])
def test_named_data_with_another_hash_give_a_warning(save, tmp_path, monkeypatch, name, widths):
    path = save(content(T=(2, 2, 2), D=widths))
    (tmp_path / name).mkdir()
    path = path.rename(tmp_path / name / "aligned_50.pkl")
    with pytest.warns(UserWarning, match="continues") as caught:
        data = load_data(name, root=tmp_path)
    assert data.name == name
    assert PUBLISHED_SHA256[name] in str(caught[0].message)
    assert data.sha256 in str(caught[0].message)
    monkeypatch.setitem(PUBLISHED_SHA256, name, data.sha256)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_data(name, root=tmp_path)
        convert(path, tmp_path / "converted")
        (tmp_path / name).rename(tmp_path / "away")
        (tmp_path / "converted").rename(tmp_path / name)
        assert load_data(name, root=tmp_path).sha256 == data.sha256  # the hash of the original file


def test_data_from_a_path_are_never_labelled_mosi_or_mosei(save, tmp_path):
    for name in ("mosi", "mosei", "synthetic", "gaussian"):
        path = save(content()).rename(tmp_path / f"{name}.pkl")
        assert load_data(path).name == f"{name} (file)"


def test_converted_data_are_equal_and_memory_mapped(save, tmp_path):
    value = change(content(), "train", "audio", put((1, 2, 0), -np.inf))
    path = save(value)
    direct, opened = load_data(path), convert(path, tmp_path / "set")
    assert isinstance(opened.train.features["text"], np.memmap)
    assert opened.sha256 == direct.sha256
    for split in N:
        a, b = direct.splits[split].batch(), load_data(tmp_path / "set").splits[split].batch()
        assert a.ids == b.ids
        assert torch.equal(a.labels, b.labels)
        assert all(torch.equal(a.features[m], b.features[m]) for m in a.features)
    with pytest.raises(UserError, match="exists already"):
        convert(path, tmp_path / "set")


def test_a_failed_conversion_leaves_no_files(save, tmp_path):
    with pytest.raises(UserError):
        convert(save(change(content(), "valid", "vision", put((2, 1, 0), np.nan))), tmp_path / "set")
    assert [p.name for p in tmp_path.iterdir()] == ["aligned.pkl"]


def test_unequal_steps_are_aligned(save):
    batch = load_data(save(content(T=(6, 18, 1)))).train.batch()
    assert {x.shape[1] for x in batch.features.values()} == {6}
    assert torch.equal(batch.features["vision"][:, 0], batch.features["vision"][:, 5])


def test_align_rules():
    x = torch.arange(6.0).reshape(1, 6, 1)
    assert align(x, 3).flatten().tolist() == [0.5, 2.5, 4.5]
    assert align(x, 8).flatten().tolist() == [0, 1, 2, 3, 4, 5, 0, 0]
    assert align(x, 6) is x


def test_standardised_features_have_mean_0_and_std_1_and_zero_padding(save):
    value = content()
    value["train"]["text"] = value["train"]["text"] * 5 + 3
    value["train"]["text"][:, 4:] = 0
    x = load_data(save(value), standardise=True).train.batch().features["text"]
    assert (x[:, 4:] == 0).all()
    assert x[:, :4].mean(dim=(0, 1)).abs().max() < 1e-5
    assert (x[:, :4].std(dim=(0, 1), correction=0) - 1).abs().max() < 1e-4


def with_lengths(value, T=6):
    for split, n in N.items():
        mask = np.arange(T) < np.arange(1, n + 1)[:, None] % T + 1
        value[split]["text_bert"] = np.stack([mask * 7, mask, mask * 0], axis=1).astype(np.float32)
        value[split]["audio_lengths"] = [min(T, i + 1) for i in range(n)]
    return value


def test_lengths_and_tokens_are_kept_by_conversion(save, tmp_path):
    path = save(with_lengths(content()))
    for data in (load_data(path), convert(path, tmp_path / "set")):
        batch = data.test.batch([3, 0])
        assert {m: n.tolist() for m, n in batch.lengths.items()} == {"text": [5, 2], "audio": [4, 1], "vision": [5, 2]}
        tokens = data.test.tokens([3])
        assert tokens.dtype == torch.int64
        assert tokens[0].tolist() == [[7, 7, 7, 7, 7, 0], [1, 1, 1, 1, 1, 0], [0] * 6]
    assert isinstance(data.test.text_bert, np.memmap)


def test_lengths_follow_the_common_steps(save):
    value = with_lengths(content(T=(6, 12, 1)))
    value["test"]["audio_lengths"] = [1, 2, 3, 11, 12]
    assert load_data(save(value)).test.batch().lengths["audio"].tolist() == [1, 1, 2, 6, 6]
    assert load_data(save(value)).test.batch().lengths["vision"].tolist() == [6] * 5


def test_lengths_out_of_range_are_clipped_with_a_warning(save):
    value = with_lengths(content())
    value["valid"]["audio_lengths"] = [0, 9, 3, 2]
    with pytest.warns(UserWarning, match=r"valid.*2 lengths of audio.*1\.\.6"):
        data = load_data(save(value))
    assert data.valid.lengths["audio"].tolist() == [1, 6, 3, 2]
    value["valid"]["audio_lengths"] = [1]
    with pytest.raises(UserError, match=r"audio_lengths.*1 lengths for 4"):
        load_data(save(value))


def test_absent_or_unusable_text_bert(save):
    with pytest.raises(UserError, match="no text_bert"):
        load_data(save(content())).train.tokens([0])
    value = with_lengths(content())
    for unusable in (value["train"]["text_bert"][:, :2], [[1], [1, 2]]):
        value["train"]["text_bert"] = unusable
        with pytest.warns(UserWarning, match="text_bert is left out"):
            load_data(save(value))


def file_of_classes(tmp_path, labels):
    value = content()
    for part in value.values():
        part["classification_labels"] = np.resize(labels, len(part.pop("regression_labels")))
    path = tmp_path / "emotions.pkl"
    path.write_bytes(pickle.dumps(value))
    return path


def test_a_file_of_classes(tmp_path):
    data = load_data(file_of_classes(tmp_path, np.array([0.0, 3.0, 1.0, 2.0], dtype=np.float32)))
    assert data.classes == 4
    assert data.test.batch([1]).labels.tolist() == [[3]]
    assert not data.test.batch([1]).labels.is_floating_point()


@pytest.mark.parametrize("bad", [-1.0, 0.5])
def test_classes_are_whole_numbers_from_0(tmp_path, bad):
    with pytest.raises(UserError, match=r"classification_labels', row 1: .*whole numbers from 0"):
        load_data(file_of_classes(tmp_path, np.array([0.0, bad])))


def test_a_file_may_name_its_own_modalities(save, tmp_path):
    value = content() | {"modalities": ["text", "audio", "vision", "gesture"]}
    for split, n in N.items():
        value[split]["gesture"] = np.ones((n, 6, 5), np.float32)
        value[split]["gesture_lengths"] = np.full(n, 4)
    path = save(value)
    data = load_data(path)
    assert data.widths == {"text": 8, "audio": 3, "vision": 4, "gesture": 5}
    assert data.test.batch().lengths["gesture"].tolist() == [4] * N["test"]
    assert convert(path, tmp_path / "four").widths == data.widths
    for bad in (["text"], ["text", "text"], ["text", "id"], 3):
        with pytest.raises(UserError, match="key 'modalities'"):
            load_data(save(value | {"modalities": bad}))
    with pytest.raises(UserError, match="'face' is missing"):
        load_data(save(value | {"modalities": ["text", "face"]}))
