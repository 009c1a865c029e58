"""Noise of samples: standard normal, independent, and a function of (seed, id, stream, call) alone."""

import numpy as np
import pytest
import torch
from scipy import stats

from imder_lib.diffusion.noise import SampleNoise

IDS = [f"sample{i}" for i in range(400)]


def drawn(shape=(3, 7), seed=1, ids=IDS, stream="", calls=1) -> torch.Tensor:
    noise = SampleNoise(seed, ids, stream)
    return torch.stack([noise.normal(torch.empty(len(ids), *shape)) for _ in range(calls)])


def test_numbers_do_not_depend_on_the_batch_or_its_order():
    whole, part = drawn(calls=3), drawn(ids=IDS[7:3:-1], calls=3)
    assert torch.equal(part, whole[:, [7, 6, 5, 4]])
    assert torch.equal(drawn(ids=[]), torch.empty(1, 0, 3, 7))


def test_numbers_are_standard_normal():
    x = drawn((50, 11), calls=3).double().numpy().ravel()
    assert stats.kstest(x, "norm").pvalue > 1e-3
    assert abs(stats.kurtosis(x)) < 0.02
    assert np.isfinite(x).all() and 4.5 < np.abs(x).max() < 6


@pytest.mark.parametrize("change", [{"seed": 2}, {"stream": "other"}, {"ids": [f"{i}'" for i in IDS]}])
def test_other_seeds_streams_and_ids_have_independent_numbers(change):
    a, b = drawn((40, 40)).flatten(), drawn((40, 40), **change).flatten()
    assert abs(float(torch.corrcoef(torch.stack([a, b]))[0, 1])) < 4 / len(a) ** 0.5


def test_samples_calls_and_elements_are_uncorrelated():
    x = drawn((64,), calls=4)  # (calls, samples, elements)
    for rows in (x.permute(1, 0, 2), x.permute(2, 0, 1), x):  # correlations over all other axes
        flat = rows.flatten(1).double()
        off = torch.corrcoef(flat) - torch.eye(len(flat))
        assert off.abs().max() < 5.5 / flat.shape[1] ** 0.5
    a, b = x[..., :32].flatten(), x[..., 32:].flatten()  # the two numbers of a pair
    assert abs(float(torch.corrcoef(torch.stack([a.abs(), b.abs()]))[0, 1])) < 4 / len(a) ** 0.5


def test_spawned_noise_is_that_of_its_rows():
    noise = SampleNoise(1, IDS, "a")
    assert torch.equal(
        noise.spawn([5, 2], "b").normal(torch.empty(2, 9)), drawn((9,), ids=[IDS[5], IDS[2]], stream="a/b")[0]
    )


def test_shape_and_dtype_follow_the_example():
    assert SampleNoise(1, IDS).normal(torch.empty(400, 3, dtype=torch.float64)).dtype == torch.float64
    with pytest.raises(ValueError, match="expected 400 rows"):
        SampleNoise(1, IDS).normal(torch.empty(3, 2))
