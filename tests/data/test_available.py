"""Key "available" of a file: which modalities its samples have."""

import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from imder_lib import UserError, load_data
from imder_lib.data.missing import restrict
from imder_runs.cli import main
from imder_runs.convert import convert
from imder_runs.describe import describe
from imder_runs.fake import write_fake

N = {"train": 9, "valid": 4, "test": 5}
WIDTHS = {"text": 8, "audio": 3, "vision": 4}
T = 6


def content(available=None):
    """A file with text_bert and lengths; ``available``, split -> rows, becomes the key."""
    rng, out = np.random.default_rng(0), {}
    for split, n in N.items():
        out[split] = {m: rng.standard_normal((n, T, D)).astype(np.float32) for m, D in WIDTHS.items()}
        out[split] |= {"regression_labels": rng.uniform(-3, 3, n).astype(np.float32)}
        out[split]["id"] = [f"{split}$_${i}" for i in range(n)]
        mask = np.arange(T) < rng.integers(2, T + 1, n)[:, None]
        out[split]["text_bert"] = np.stack([mask * 7, mask, mask * 0], axis=1)
        out[split]["vision_lengths"] = rng.integers(1, T + 1, n)
        if split in (available or {}):
            out[split]["available"] = available[split]
    return out


def lacking(n, **rows):
    """(n, 3), 0 at the named rows of each modality."""
    out = np.ones((n, 3), dtype=int)
    for m, which in rows.items():
        out[which, list(WIDTHS).index(m)] = 0
    return out


SOME = {"train": lacking(9, text=[2], vision=[0, 2, 5]), "test": lacking(5, text=[1, 3], audio=[3])}


@pytest.fixture
def save(tmp_path):
    def write(value, name="mine.pkl"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(value))
        return path

    return write


def equal(a, b):
    """Whether two splits give the same batch, lengths and tokens."""
    x, y = a.batch(), b.batch()
    parts = [(x.features, y.features), (x.lengths, y.lengths)]
    return all(torch.equal(p[m], q[m]) for p, q in parts for m in p) and torch.equal(
        a.tokens(range(len(a))), b.tokens(range(len(b)))
    )


@pytest.mark.parametrize(
    "kind", [np.array, lambda a: np.array(a, bool), lambda a: np.array(a, np.uint8), np.ndarray.tolist]
)
def test_a_file_and_its_folder_say_what_is_there(save, tmp_path, kind):
    path = save(content({split: kind(a) for split, a in SOME.items()}))
    for data in (load_data(path, standardise=True), convert(path, tmp_path / "set")):
        for split, a in SOME.items():
            assert data.splits[split].available.tolist() == a.astype(bool).tolist()
        assert data.valid.available is None
        assert data.valid.given(WIDTHS).all()
        assert data.train.first(3).available.tolist() == SOME["train"][:3].astype(bool).tolist()
        assert data.test.given(["vision", "text"]).tolist() == SOME["test"][:, [2, 0]].astype(bool).tolist()
        batch = data.test.batch([3, 0])
        assert not batch.features["text"][0].any()
        assert not batch.features["audio"][0].any()
        assert all(x[1].any() for x in batch.features.values())
        text = describe(data)
        assert "1 lack text, 3 lack vision" in text
        assert "2 lack text, 1 lack audio" in text
        assert "all zero" not in text


@pytest.mark.parametrize("number", [np.nan, 5.0, 1e30])
def test_what_stands_where_nothing_is_there_is_not_read(save, tmp_path, number):
    value, other = content(SOME), content(SOME)
    for split, a in SOME.items():
        for m, has in zip(WIDTHS, a.astype(bool).T, strict=True):
            other[split][m][~has] = number
        other[split]["text_bert"] = np.where(a[:, :1, None] == 1, other[split]["text_bert"], number)
        other[split]["vision_lengths"] = np.where(a[:, 2] == 1, other[split]["vision_lengths"], number)
    pairs = [[load_data(p, standardise=True) for p in (save(value), save(other, "other.pkl"))]]
    pairs.append([convert(tmp_path / f"{name}.pkl", tmp_path / name) for name in ("mine", "other")])
    for a, b in pairs:
        assert all(equal(a.splits[split], b.splits[split]) for split in N)
        split = replace(b.test, features={m: np.full_like(x, 3) for m, x in b.test.features.items()}, scale=None)
        assert not split.batch().features["text"][[1, 3]].any()  # also of a split made in memory


def test_without_text_the_lengths_of_text_say_nothing(save):
    lengths = load_data(save(content(SOME))).test.batch().lengths
    assert lengths["text"][[1, 3]].tolist() == [T, T]
    assert lengths["audio"][[1, 3]].tolist() == [T, T]
    assert lengths["audio"][0] == lengths["text"][0]


def test_all_available_is_as_without_the_key(save):
    full = {split: np.ones((n, 3), bool) for split, n in N.items()}
    plain, marked = load_data(save(content()), standardise=True), load_data(save(content(full)), standardise=True)
    assert all(s.available is None for s in marked.splits.values())
    assert all(equal(plain.splits[split], marked.splits[split]) for split in N)


def test_columns_follow_the_list_of_the_file(save):
    value = content({"test": lacking(5, text=[1, 3], audio=[3])[:, [2, 0, 1]]}) | {
        "modalities": ["vision", "text", "audio"]
    }
    data = load_data(save(value))
    assert data.modalities == ("vision", "text", "audio")
    assert data.test.given(WIDTHS).int().tolist() == SOME["test"].tolist()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.ones((5, 2), bool), r"'available': bool \(5, 2\), expected bool or 0 and 1, \(5, 3\), .*'text'"),
        (np.ones(5, bool), r"'available': bool \(5,\)"),
        ([[1, 1, 1]] * 4 + [[1]], "'available': rows of unequal length"),
        (np.ones((5, 3)), "'available': float64"),
        (np.full((5, 3), "yes"), "'available': <U3"),
        (lacking(5) + lacking(5, audio=[0, 1, 2, 4]), "'available', row 0: 2, expected"),
        (lacking(5, text=[2], audio=[2], vision=[2, 4]), "'available', row 2: no modality"),
    ],
)
def test_unusable_marks_are_refused_with_their_place(save, bad, message):
    with pytest.raises(UserError, match=f"split 'test', key {message}"):
        load_data(save(content({"test": bad})))


def test_a_changed_folder_is_refused(save, tmp_path):
    convert(save(content(SOME)), tmp_path / "set")
    for bad in (np.ones((5, 3)), np.ones((5, 2), bool), np.zeros((5, 3), bool)):
        np.save(tmp_path / "set" / "test.available.npy", bad)
        with pytest.raises(UserError, match=r"available.*imder convert"):
            load_data(tmp_path / "set")


def test_a_fake_file_may_lack_modalities(tmp_path, monkeypatch):
    sizes = {"train": 30, "valid": 12, "test": 12}
    path = write_fake("mosi", tmp_path / "fake.pkl", sizes=sizes, steps=4, missing=0.3)
    data = load_data(path)
    assert all((~s.available).mean() == pytest.approx(0.3, abs=0.02) for s in data.splits.values())
    assert "lack vision" in describe(data)
    monkeypatch.setattr(sys, "argv", ["imder", "fake", "mosi", str(tmp_path / "x.pkl"), "--missing", "0.9"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert not (tmp_path / "x.pkl").exists()


def test_a_mask_never_becomes_empty():
    given = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 1, 1]]).bool()
    mask = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 0]]).bool()
    assert restrict(mask, given).int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]


def test_marks_beside_the_splits_are_refused(tmp_path):
    path = tmp_path / "mine.pkl"
    path.write_bytes(pickle.dumps(content() | {"available": lacking(N["train"])}))
    with pytest.raises(UserError, match="key 'available' stands beside the splits, expected one in each split"):
        load_data(path)


def test_a_file_without_complete_samples_says_so(tmp_path):
    path, none = tmp_path / "mine.pkl", {split: lacking(n, vision=range(n)) for split, n in N.items()}
    path.write_bytes(pickle.dumps(content(none)))
    text = describe(load_data(path))
    assert "split 'train': no sample has all modalities, so the kit cannot train on this file" in text
    assert "columns are constant" not in text  # what stands behind the marks is not looked at
