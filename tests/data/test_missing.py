"""Missing protocols: exact rates, independence of order, and the batch rule of the release."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imder_lib import UserError, availability, patterns
from imder_lib.data.missing import RATES, missing_counts, modality_rates, nominal_rate, rates_text, realised_rate

M3 = ("text", "audio", "vision")


@pytest.mark.parametrize("n", [1, 7, 229, 686, 1284])
@pytest.mark.parametrize("rate", [0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.37, 0.4, 0.5, 0.6, 0.65, 2 / 3])
def test_random_realises_the_rate_and_leaves_one_modality(n, rate):
    available = availability("random", n, M3, rate, seed=3)
    assert available.any(dim=1).all()
    assert abs(realised_rate(available) - rate) <= 1 / n


def test_seven_tenths_means_two_thirds():
    assert realised_rate(availability("random", 300, M3, 0.7)) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("rate", "two", "one"), [(0.1, 0.1, 0.1), (0.3, 0.3, 0.3), (0.4, 0.5, 0.2), (0.6, 0.9, 0.0)])
def test_shares_of_the_release(rate, two, one):
    missing = (~availability("random", 1000, M3, rate)).sum(dim=1)
    assert [(missing == k).sum().item() for k in (2, 1)] == [round(1000 * two), round(1000 * one)]


@pytest.mark.parametrize("M", [2, 4, 5])
def test_other_numbers_of_modalities(M):
    names = [f"m{i}" for i in range(M)]
    for rate in (0, 0.2, 0.5, (M - 1) / M):
        available = availability("random", 101, names, rate)
        assert abs(realised_rate(available) - rate) <= 1 / 101
        assert available.any(dim=1).all()


def test_mask_depends_on_the_id_not_on_the_position():
    ids = [f"video{i}" for i in range(50)]
    a = availability("random", 50, M3, 0.4, seed=5, ids=ids)
    b = availability("random", 50, M3, 0.4, seed=5, ids=ids[::-1])
    assert torch.equal(a, b.flip(0))
    assert not torch.equal(a, availability("random", 50, M3, 0.4, seed=6, ids=ids))


@pytest.mark.parametrize(
    ("n", "batch_size", "rate", "realised"),
    [
        (686, 32, 0.1, 0.093), (686, 32, 0.3, 0.280), (686, 32, 0.5, 0.466), (686, 32, 0.7, 0.622),
        (229, 32, 0.1, 0.140), (229, 32, 0.3, 0.419), (229, 32, 0.5, 0.659),
        (4659, 128, 0.3, 0.330), (4659, 128, 0.6, 0.659), (100, 32, 0.3, 0.0), (686, 32, 0.0, 0.0),
    ],
)  # fmt: skip
def test_realised_rates_of_the_released_protocol(n, batch_size, rate, realised):
    available = availability("released", n, M3, rate, batch_size=batch_size)
    assert round(realised_rate(available), 3) == realised
    assert available.any(dim=1).all()


def test_fixed_patterns():
    assert len(patterns(M3)) == 7
    assert availability("fixed", 2, M3, ("vision", "text")).tolist() == [[True, False, True]] * 2
    assert availability("fixed", 1, M3, "audio").tolist() == [[False, True, False]]


@pytest.mark.parametrize(
    ("protocol", "rate"),
    [("random", 0.8), ("random", -0.1), ("random", None), ("random", "0.3"), ("released", 0.35), ("fixed", "smell"),
     ("fixed", None), ("fixed", ""), ("often", 0.1), ("instance", 1.01), ("instance", math.nan), ("instance", True),
     ("instance", None), ("imbalanced", 0.3), ("imbalanced", None), ("imbalanced", {"text": 1.5}), ("imbalanced", {}),
     ("imbalanced", {"smell": 0.1}), ("imbalanced", {"text": "low"}), ("imbalanced", "text=0.1+text=0.2"),
     ("imbalanced", {"text": math.nan}), ("imbalanced", {"text": True})],
)  # fmt: skip
def test_bad_protocols_raise(protocol, rate):
    with pytest.raises(UserError):
        availability(protocol, 10, M3, rate)


def test_counts_sum_to_the_number_of_samples():
    assert [sum(missing_counts(686, 3, r)) for r in RATES] == [686] * len(RATES)


RATE = st.floats(0, 1)


@given(rates=st.lists(RATE, min_size=2, max_size=5), seed=st.integers(0, 2**32), factor=RATE)
def test_independent_masks(rates, seed, factor):
    """Rates within binomial bounds; nothing empty; nested; order and batch do not matter."""
    n, names = 100, [f"m{i}" for i in range(len(rates))]
    ids = [f"video{i}" for i in range(n)]

    def masks(rates, ids):
        return availability("imbalanced", len(ids), names, dict(zip(names, rates, strict=True)), seed=seed, ids=ids)

    a = masks(rates, ids)
    assert a.any(dim=1).all()
    expected = np.array(rates) - math.prod(rates) / len(rates)
    bound = 6 * np.sqrt(expected * (1 - expected) / n) + 6 / n
    assert (np.abs((~a).double().mean(dim=0).numpy() - expected) <= bound).all()
    assert torch.equal(a, masks(rates, ids[::-1]).flip(0))
    assert torch.equal(a, torch.cat([masks(rates, ids[:7]), masks(rates, ids[7:])]))
    assert (a <= masks([factor * r for r in rates], ids)).all()


@given(rate=RATE, M=st.integers(2, 5), seed=st.integers(0, 2**32))
def test_instance_is_imbalanced_with_equal_rates(rate, M, seed):
    names = [f"m{i}" for i in range(M)]
    a = availability("instance", 30, names, rate, seed=seed)
    assert torch.equal(a, availability("imbalanced", 30, names, dict.fromkeys(names, rate), seed=seed))
    assert (a.sum(dim=1) == 1).all() or rate < 1


def test_rates_of_modalities_as_text():
    assert modality_rates("vision=1+text=0.25", M3) == modality_rates({"text": 0.25, "vision": 1}, M3) == [0.25, 0, 1]
    assert rates_text({"text": np.float32(0.1)}) == "text=0.1"
    assert modality_rates("a=b=0.5", ("a=b", "c")) == [0.5, 0]
    found = [nominal_rate(*case, M3) for case in (("imbalanced", "text=0.6"), ("instance", 0.3), ("fixed", "text"))]
    assert found == pytest.approx([0.2, 0.3, 2 / 3])
