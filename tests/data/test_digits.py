"""Digits: three modalities of real images, with classes."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from imder_course.decoding import image
from imder_lib import UserError, load_data
from imder_runs.describe import describe


def test_modalities_reconstruct_the_image():
    data = load_data("digits")
    assert {k: len(s) for k, s in data.splits.items()} == {"train": 1257, "valid": 180, "test": 360}
    assert data.widths == {"top": 3, "middle": 2, "bottom": 3}
    assert (data.steps, data.classes) == (8, 10)
    raw = load_digits()
    row = int(data.test.ids[7].split("/")[1])
    whole = image({m: x[7] for m, x in data.test.features.items()})
    np.testing.assert_allclose((whole + 1) * 8.5, raw.images[row], atol=1e-5)
    assert data.test.labels[7] == raw.target[row]
    assert not any((x == 0).all(axis=-1).any() for s in data.splits.values() for x in s.features.values())  # no padding
    assert "classes 0 to 9" in describe(data)


def test_splits_share_no_image_and_follow_the_seed():
    ids = [set(s.ids) for s in load_data("digits").splits.values()]
    assert len(set.union(*ids)) == sum(map(len, ids)) == 1797
    assert load_data("digits", seed=1).test.ids != load_data("digits").test.ids
    counts = np.bincount(load_data("digits").test.labels)
    assert counts.min() >= 34  # in proportion: 1797 images have 174 to 183 of each class


def test_missing_modalities_are_nan():
    part = image({"bottom": np.ones((2, 8, 3))})
    assert np.isnan(part[:, :5]).all()
    assert (part[:, 5:] == 1).all()
    with pytest.raises(UserError, match="text"):
        image({"text": np.ones((2, 8, 3))})
