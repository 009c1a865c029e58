"""Odd files by the thousand: each loads, or gives a UserError. ``make fuzz`` runs many more."""

import pickle
import warnings
from resource import RUSAGE_SELF, getrusage

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from imder_lib import UserError, load_data
from imder_runs.describe import describe
from imder_runs.notebook import Parameter, parse_value

SPLITS = ("train", "valid", "test")
KEYS = ("text", "audio", "vision", "regression_labels", "classification_labels", "id", "raw_text", "text_bert",
        "audio_lengths", "vision_lengths", "text_lengths", "available", "modalities", "annotations")  # fmt: skip
DTYPES = ("float32", "float64", "float16", "int64", "int8", "uint8", "bool", "complex64", "U3", "S3", "O")
NUMBERS = st.sampled_from([0, 1, -1, 0.5, 3, 1e30, -1e30, 2**40, np.nan, np.inf, -np.inf])


@st.composite
def arrays(draw) -> np.ndarray:
    """An array of any dtype, of up to four short axes, with a few extreme numbers."""
    shape = tuple(draw(st.lists(st.integers(0, 7), max_size=4)))
    x = np.resize(np.array(draw(st.lists(NUMBERS, min_size=1, max_size=4)), dtype=object), shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return x.astype(draw(st.sampled_from(DTYPES)))
        except (ValueError, OverflowError, TypeError):
            return x


PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=4), st.binary(max_size=4), arrays())
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=6), st.tuples(inner, inner), st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
    ),
    max_leaves=8,
)


def good(rows: int = 5) -> dict:
    """A small file that fits."""
    rng = np.random.default_rng(0)
    out = {}
    for split in SPLITS:
        out[split] = {m: rng.standard_normal((rows, 4, d)).astype(np.float32) for m, d in
                      (("text", 6), ("audio", 2), ("vision", 3))}  # fmt: skip
        out[split]["regression_labels"] = np.resize(np.float32([-2, 1, 0, 2, -1]), rows)
        out[split]["id"] = [f"{split}{i}" for i in range(rows)]
    return out


def load(path, content: bytes) -> None:
    """Load a file and use what came; only a UserError may be raised, and memory stays small."""
    path.write_bytes(content)
    before = getrusage(RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = load_data(path)
            describe(data)
            data.train.batch([0])
        except UserError as error:
            assert str(path) in str(error) and len(str(error)) < 2000
    grown = (getrusage(RUSAGE_SELF).ru_maxrss - before) << 10  # bytes in use; what is only reserved costs nothing
    assert grown < 2 * len(content) + (20 << 20)


@given(place=st.sampled_from([*SPLITS, None]), key=st.sampled_from(KEYS), value=VALUES, gone=st.booleans())
def test_one_odd_value(tmp_path, place, key, value, gone):
    content = good()
    part = content if place is None else content[place]
    if gone:
        part.pop(key, None)
    else:
        part[key] = value
    load(tmp_path / "odd.pkl", pickle.dumps(content))


@given(values=st.dictionaries(st.tuples(st.sampled_from(SPLITS), st.sampled_from(KEYS)), VALUES, max_size=5))
def test_several_odd_values(tmp_path, values):
    content = good()
    for (split, key), value in values.items():
        content[split][key] = value
    load(tmp_path / "odd.pkl", pickle.dumps(content))


@given(value=VALUES)
def test_another_content(tmp_path, value):
    load(tmp_path / "odd.pkl", pickle.dumps(value))


@given(cut=st.integers(0, 3000), flips=st.lists(st.tuples(st.integers(0, 2999), st.integers(1, 255)), max_size=6))
def test_damaged_bytes(tmp_path, cut, flips):
    content = bytearray(pickle.dumps(good()))
    for at, change in flips:
        content[at % len(content)] ^= change
    load(tmp_path / "odd.pkl", bytes(content[: len(content) - cut]))


@given(kind=st.sampled_from(["int", "float", "str", "bool"]), value=PLAIN)
def test_notebook_parameters(kind, value):
    types = {"int": int, "float": float, "str": str, "bool": bool}
    try:
        assert type(parse_value(Parameter("x", kind, None, ""), value)) is types[kind]
    except UserError as error:
        assert "parameter x" in str(error)
