"""Files and habits of real users: each kind of fault gives one UserError that says what came and what to do."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import random
import shutil
import tracemalloc
import warnings

import numpy as np
import pytest
import torch

from imder_lib import UserError, load_data
from imder_lib.data.pickles import read_pickle
from imder_runs.convert import convert
from imder_runs.describe import describe, sentiment_scale

N = {"train": 12, "valid": 6, "test": 6}
SHAPES = {"text": (4, 6), "audio": (4, 2), "vision": (4, 3)}


def content(labels=(-2.5, 2.5, 0.5, 1.5, -1.5, 3.0)):
    rng = np.random.default_rng(0)
    out = {}
    for split, n in N.items():
        out[split] = {m: rng.standard_normal((n, *shape)).astype(np.float32) for m, shape in SHAPES.items()}
        out[split] |= {"regression_labels": np.resize(np.float32(labels), n), "raw_text": ["a"] * n}
        out[split]["id"] = [f"{split}{i}" for i in range(n)]
        out[split]["text_bert"] = np.ones((n, 3, 4), np.float32)
    return out


def classes(labels=(0, 1, 2)):
    value = content(labels)
    for part in value.values():
        part["classification_labels"] = part.pop("regression_labels")
    return value


@pytest.fixture
def save(tmp_path):
    def write(value):
        path = tmp_path / "mine.pkl"
        path.write_bytes(pickle.dumps(value))
        return path

    return write


def renamed(old, new):
    value = content() | {"modalities": [new if m == old else m for m in SHAPES]}
    for split in N:
        value[split][new] = value[split].pop(old)
    return value


@pytest.mark.parametrize(
    "name", ["a+b", "a.b", "a<b", "", "c/d", "a\\b", "a\nb", "a\0", "m" * 61, "x_lengths", "keys", "type", "training"]
)
def test_names_that_patterns_parameters_or_files_cannot_hold(save, name):
    with pytest.raises(UserError, match=r"key 'modalities': a modality cannot have the name"):
        load_data(save(renamed("vision", name)))
    with pytest.raises(UserError, match="widths: a modality cannot have the name"):
        load_data("gaussian", widths={"text": 3, name: 2})


def test_other_names_are_kept(save):
    assert load_data(save(renamed("vision", "eye gaze_2 (é)"))).modalities == ("text", "audio", "eye gaze_2 (é)")


@pytest.mark.parametrize("split", N)
@pytest.mark.parametrize("number", [1e30, -1e30, 1.1e15])
def test_numbers_that_overflow_in_training_are_refused(save, split, number):
    value = content()
    value[split]["audio"][2, 1, 0] = number
    with pytest.raises(UserError, match=rf"'{split}', key 'audio', row 2: .* at \(2, 1, 0\).*1e\+15"):
        load_data(save(value))


def test_unusual_numbers_and_other_oddities_are_described(save, tmp_path):
    value = content()
    assert describe(load_data(save(value))).count("\n") == 3
    value["valid"]["audio"][3, 1, 0] = 1e8
    value["train"]["vision"][:5] = 0
    value["train"]["text"][..., 2:4] = 7
    for m in SHAPES:
        value["test"][m][4] = value["train"][m][9]
    path = save(value)
    for data in (load_data(path), convert(path, tmp_path / "set")):
        lines = describe(data).splitlines()[4:]
        assert len(lines) == 4
        assert lines[0] == "  split 'train', key 'text': 2 of 6 columns are constant"
        hint = "if they have no vision, say so in key 'available' (docs/your_data.md)"
        assert lines[1] == f"  split 'train', key 'vision': 5 of 12 rows are all zero: {hint}"
        assert lines[2].startswith("  split 'valid', key 'audio', row 3: reaches 1e+08, in a usual row ")
        same = "  split 'test': 1 rows have the features of a row in another split; "
        assert lines[3] == same + "the first is row 4, id 'test4', as in 'train'"


@pytest.mark.parametrize(
    ("labels", "sentiment"),
    [
        ((-1, -0.6, 0.2, 1), False),
        ((-1.000001, 0, 1.000001), False),
        ((-1, 0, 3), False),
        ((-3, 0, 1), False),
        ((-4 / 3, 0, 4 / 3), True),
        ((-3, 0, 3), True),
    ],
)
def test_labels_within_1_are_no_sentiments(save, labels, sentiment):
    data = load_data(save(content(labels)))
    assert sentiment_scale(data) == sentiment
    assert ("labels are no sentiments" in describe(data)) != sentiment


@pytest.mark.parametrize("split", N)
def test_one_kind_of_labels_in_the_whole_file(save, split):
    value = content()
    value[split]["classification_labels"] = np.arange(N[split])
    load_data(save(value))
    del value[split]["regression_labels"]
    with pytest.raises(
        UserError, match=f"split '{split}': key 'regression_labels' is missing: all splits need it: add it"
    ):
        load_data(save(value))
    value = classes()
    del value[split]["classification_labels"]
    with pytest.raises(UserError, match=f"split '{split}': key 'classification_labels' is missing"):
        load_data(save(value))


def test_classes_of_the_whole_file(save):
    assert load_data(save(classes())).classes == 3
    with pytest.raises(UserError, match="'train', key 'classification_labels': only class 2, expected"):
        load_data(save(classes([2])))
    value = classes()
    value["test"]["classification_labels"] = np.array([0, 1, 2, 5, 0, 7])
    with pytest.warns(UserWarning, match=r"'test', key 'classification_labels', row 3: class 5 .*2 such rows"):
        assert load_data(save(value)).classes == 8
    value["test"]["classification_labels"] = np.array([0, 1, 2, 3, 2**40, 0])
    with pytest.raises(UserError, match=f"'test', .*row 4: class {2**40} in a file of 24 samples"):
        load_data(save(value))


def manifest(change):
    def edit(folder):
        path = folder / "manifest.json"
        value = json.loads(path.read_text())
        path.write_text(json.dumps(change(value) or value))

    return edit


def array(name, change):
    def edit(folder):
        np.save(folder / name, change(np.load(folder / name)))

    return edit


def text(name, value):
    return lambda folder: (folder / name).write_text(value)


def ids(value):
    return text("train.json", json.dumps({"ids": value, "texts": []}))


def without(split, m):
    def change(value):
        value["splits"][split]["modalities"].remove(m)
        del value["splits"][split]["shapes"][m]

    return manifest(change)


DAMAGED = {
    "no sha256": (manifest(lambda v: v.pop("sha256") and None), "manifest.json"),
    "sha256 null": (manifest(lambda v: v.update(sha256=None)), "manifest.json"),
    "list": (text("manifest.json", "[]"), "manifest.json"),
    "null": (text("manifest.json", "null"), "manifest.json"),
    "notes": (manifest(lambda v: v.update(notes=None)), "manifest.json"),
    "no label": (
        manifest(lambda v: v["splits"]["test"]["shapes"].pop("regression_labels") and None),
        "split 'test': key 'regression_labels' is missing",
    ),
    "deep": (text("manifest.json", "[" * 100_000), "manifest.json"),
    "0 bytes": (text("train.text.npy", ""), "train.text.npy"),
    "no array": (text("valid.audio.npy", "abc"), "valid.audio.npy"),
    "no file": (lambda folder: (folder / "test.vision.npy").unlink(), "test.vision.npy"),
    "train.json list": (text("train.json", "[]"), "train.json"),
    "no ids": (text("train.json", '{"texts": []}'), "train.json.*ids"),
    "strings": (array("valid.vision.npy", lambda x: x.astype("U3")), "'valid', key 'vision': dtype <U3"),
    "bool": (array("train.text.npy", lambda x: x > 0), "'train', key 'text': dtype bool"),
    "label strings": (array("train.regression_labels.npy", lambda x: x.astype("U3")), "'train'.*regression_labels"),
    "label nan": (array("test.regression_labels.npy", lambda x: x * np.nan), "'test'.*regression_labels', row 0"),
    "label classes": (array("test.regression_labels.npy", lambda x: np.int64(x > 0)), "split 'test'.*is missing"),
    "fewer rows": (array("test.text.npy", lambda x: x[:-1]), r"test.text.npy has shape \(5, 4, 6\)"),
    "one id": (ids(["a"]), "'train', key 'text': 12 rows, but there are 1 ids"),
    "equal ids": (ids(["a"] * 12), "'train', key 'id', row 1: 'a' is in split 'train' already"),
    "ids a string": (ids("abcdefghijkl"), "'train', key 'id': expected a list of strings"),
    "ids a dict": (ids({f"{i}": 0 for i in range(12)}), "'train', key 'id': expected a list of strings"),
    "modality": (without("valid", "audio"), "split 'valid' has other modalities than 'train'"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_folder_is_refused_when_opened(save, tmp_path, name):
    convert(save(content()), tmp_path / "set")
    edit, message = DAMAGED[name]
    edit(tmp_path / "set")
    with pytest.raises(UserError, match=rf"(?s)set.*{message}.*convert again") as error:
        load_data(tmp_path / "set")
    assert "\n" not in str(error.value)


def test_numbers_of_a_folder_are_read_by_describe(save, tmp_path):
    convert(save(content()), tmp_path / "set")
    array("valid.text.npy", lambda x: np.where(np.arange(len(x))[:, None, None] == 4, np.nan, x))(tmp_path / "set")
    data = load_data(tmp_path / "set")
    with pytest.raises(UserError, match="set: split 'valid', key 'text', row 4: nan"):
        describe(data)


def test_texts_and_tokens(save):
    value = content()
    value["valid"]["raw_text"] = ["a"] * 5
    with pytest.raises(UserError, match="'valid', key 'raw_text': 5 texts for 6 ids"):
        load_data(save(value))
    for row, number in ((0, np.nan), (0, -1), (0, 5_000_000), (0, 0.5), (1, 2), (2, np.inf)):
        value = content()
        value["test"]["text_bert"][3, row, 1] = number
        with pytest.raises(UserError, match=rf"'test', key 'text_bert', row 3: .* at \(3, {row}, 1\); expected"):
            load_data(save(value))


def saved(write, value):
    file = io.BytesIO()
    write(file, value)
    return file.getvalue()


def old_torch(file, value):
    torch.save(value, file, _use_new_zipfile_serialization=False)


FORMATS = {
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run git lfs pull"),
    "html": (b"\xef\xbb\xbf\n <!DOCTYPE html><html>", "web page"),
    "gzip": (gzip.compress(b"x"), "compressed"),
    "bzip2": (bz2.compress(b"x"), "compressed"),
    "xz": (lzma.compress(b"x"), "compressed"),
    "torch": (saved(lambda f, x: torch.save(x, f), {"a": 1}), "torch.save"),
    "old torch": (saved(old_torch, {"a": 1}), "torch.save"),
    "npz": (saved(np.savez, np.ones(2)), "np.savez"),
    "npy": (saved(np.save, np.ones(2)), "np.save"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5"),
    "json": (b'{"train": {}}', "JSON"),
    "zeros": (bytes(5000), "zeros"),
    "empty": (b"", "empty"),
    "csv": (b"id,label\na,1\n", r"begins with b'id,label.* if it is text, .* pickle a dict of NumPy arrays"),
    "damaged": (b"\x80\x04\x95\x10", "download or copy it again"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_first_bytes_tell_what_a_file_is(tmp_path, name):
    value, message = FORMATS[name]
    path = tmp_path / "mine.pkl"
    path.write_bytes(value)
    with pytest.raises(UserError, match=message) as error:
        load_data(path)
    assert "mine.pkl" in str(error.value)


class Call:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


GB2 = 2 << 30
_reconstruct = np.empty(0).__reduce__()[0]


@pytest.mark.parametrize(
    "value", [Call(bytearray, (GB2,)), Call(np.ndarray, ((GB2,),)), Call(_reconstruct, (np.ndarray, (GB2,), b"b"))]
)
def test_a_pickle_gets_no_more_memory_than_its_bytes(save, value):
    path = save(value)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"mine\.pkl"):
        read_pickle(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()
    assert read_pickle(save([bytearray(b"abc"), np.float64(2), np.array(3.0)])) == [b"abc", 2, 3]


def test_near_names_are_suggested(save):
    with pytest.raises(UserError, match=r"did you mean synthetic\?"):
        load_data("sinthetic")
    value = content()
    value["test"]["visoin"] = value["test"].pop("vision")
    with pytest.raises(UserError, match=r"'test': key 'vision' is missing: did you mean visoin\?"):
        load_data(save(value))
    value = content()
    value["vaild"] = value.pop("valid")
    with pytest.raises(UserError, match=r"no split 'valid': did you mean vaild\?"):
        load_data(save(value))


@pytest.mark.parametrize("name", ["dev", "val"])
def test_dev_and_val_are_taken_for_valid(save, tmp_path, name):
    value = content()
    value[name] = value.pop("valid")
    path = save(value)
    for data in (load_data(path), convert(path, tmp_path / "set")):
        assert data.valid.ids == [f"valid{i}" for i in range(6)]
        assert f"split '{name}' of the file is read as 'valid'" in describe(data)
    value["validation"] = value[name]
    with pytest.raises(UserError, match="no split 'valid'"):
        load_data(save(value))


def test_parameters_that_do_not_apply_are_refused(save):
    path = save(content())
    for source, given in (
        ("digits", {"widths": {"top": 3}}),
        ("digits", {"steps": 8}),
        ("two_moons", {"steps": 1}),
        (path, {"seed": 0}),
        (path, {"steps": 4}),
        (path, {"widths": {"text": 6}}),
    ):
        with pytest.raises(UserError, match=f"{next(iter(given))} cannot be chosen"):
            load_data(source, **given)


def test_sizes_of_a_file_are_the_first_rows(save):
    path = save(content())
    data = load_data(path, standardise=True, sizes={"train": 5, "test": 100})
    assert [len(s) for s in data.splits.values()] == [5, 6, 6]
    whole = load_data(path, standardise=True).train
    assert torch.equal(data.train.batch().features["text"], whole.first(5).batch().features["text"])
    for sizes in ({"train": 0}, {"dev": 3}):
        with pytest.raises(UserError, match="sizes must give"):
            load_data(path, sizes=sizes)
    assert len(load_data("digits", sizes={"train": 30}).train) == 30


def objects(rows):
    out = np.empty(len(rows), dtype=object)
    out[:] = rows
    return out


def test_object_arrays_of_equal_arrays_are_stacked(save):
    value = content()
    want = value["train"]["text"].copy()
    for rows in (list(want), [x.tolist() for x in want]):
        value["train"]["text"] = objects([*rows, None])[:-1]
        np.testing.assert_array_equal(load_data(save(value)).train.batch().features["text"], want)
    value["train"]["text_bert"] = objects([*value["train"]["text_bert"], None])[:-1]
    assert load_data(save(value)).train.text_bert.shape == (12, 3, 4)
    for rows in (list(want), [x.tolist() for x in want]):
        rows[3] = rows[3][:2]
        for unequal in (rows, objects(rows)):
            value["train"]["text"] = unequal
            with pytest.raises(UserError, match=r"key 'text', row 3: shape \(2, 6\), row 0 has \(4, 6\): pad"):
                load_data(save(value))


ODD = [
    None, True, 0, -1, 2**70, 1e30, float("nan"), 1j, "", "abc", b"abc", [], {}, (), set(), [[1], [1, 2]], [None] * 12,
    bytearray(b"a"), np.float64(1), np.zeros(()), np.zeros((0, 4, 6)), np.ones(12), np.ones((12, 1)), np.ones((12, 4)),
    np.ones((12, 4, 6), np.float16), np.full((12, 4, 6), 255, np.uint8), np.ones((12, 4, 6)) * 1j, np.arange(12),
    np.ones((12, 3, 4)) * np.nan, np.full((12, 4, 6), "x"), np.ones((12, 4, 6), object), np.zeros(12, "i4,f8"),
    np.full(12, "2020-01-01", "M8[D]"), np.array(["a", None, 1.5] * 4, object), np.ones((12, 4, 6)) * 1e300,
    [np.ones((4, 6))] * 11 + [np.ones((3, 6))], [[np.ones(4), np.ones(3)]] * 12, np.ones((2,) * 12),
    np.zeros((12, 4, 0)),
]  # fmt: skip
KEYS = [*SHAPES, "regression_labels", "classification_labels", "id", "raw_text", "text_bert", "audio_lengths"]


def odd_file(rng):
    value = content()
    for _ in range(rng.randint(1, 3)):
        kind, split, key = rng.randrange(5), rng.choice(list(N)), rng.choice(KEYS)
        if kind == 0:
            value[rng.choice([split, "modalities", "dev", 3])] = rng.choice(ODD)
        elif not isinstance(value.get(split), dict):
            continue
        elif kind == 1:
            value[split].pop(key, None)
        elif kind == 2 and isinstance(x := value[split].get(key), np.ndarray) and x.ndim and x.dtype.kind == "f":
            x.reshape(-1)[rng.randrange(x.size or 1) :][:1] = rng.choice([np.nan, np.inf, -np.inf, 1e30, -1, 1e15])
        else:
            value[split][key] = rng.choice(ODD)
    return value


@pytest.mark.parametrize("seed", range(8))
def test_any_odd_file_gives_no_error_but_a_user_error(save, tmp_path, seed):
    rng = random.Random(seed)
    for _ in range(25):
        path = save(odd_file(rng))
        if rng.random() < 0.1:
            path.write_bytes(path.read_bytes()[: rng.randrange(3000)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                describe(load_data(path, standardise=True))
                describe(convert(path, tmp_path / "set"))
            except UserError as error:
                assert "mine.pkl" in str(error)
        shutil.rmtree(tmp_path / "set", ignore_errors=True)
