"""Trainer: the rules of the training loop on a stage of one weight, whose every step is known."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from imder_lib import TrainConfig
from imder_lib.config import StageConfig
from imder_lib.experiment.trainer import Stage, Trainer

LR = 0.1


class Toy:
    """A stage of one weight w: its gradient is ``gradient(step)``, its validation losses are given.

    Attributes:
        rows: the rows of each batch.
        random: a number of the default generator for each batch, as dropout takes them.
        before: w before each step.
        checked: w and a number of the default generator at each validation.
    """

    def __init__(self, valid, size=1, start=0.0, decay=0.0, gradient=lambda step: 1.0, **stage):
        self.part, self.valid, self.gradient = nn.Linear(1, 1, bias=False), list(valid), gradient
        nn.init.constant_(self.part.weight, start)
        self.rows, self.random, self.before, self.checked = [], [], [], []
        settings = StageConfig(len(self.valid), LR, decay, 1)
        self.stage = Stage("toy", settings, [self.part], self.loss, self.validate, size, **stage)

    def loss(self, rows, generator, mask):
        self.rows.append(rows.tolist())
        self.random.append((float(torch.rand(())), float(torch.rand((), generator=generator))))
        self.before.append(self.part.weight.item())
        return self.gradient(len(self.rows)) * self.part.weight.sum()

    def validate(self):
        self.checked.append((self.part.weight.item(), float(torch.rand(()))))
        return torch.tensor([self.valid[len(self.checked) - 1]], dtype=torch.float64)

    def run(self, folder, **config):
        """The history; weights of the best epoch are set."""
        trainer = Trainer(self.part, TrainConfig(**config), folder, False, {})
        trainer.run(self.stage)
        return trainer.history


def column(history, name):
    return [row[name] for row in history]


def test_the_weights_of_the_lowest_validation_loss_are_kept(tmp_path):
    """A constant gradient moves w by the learning rate; of equal losses the first counts."""
    toy = Toy([3.0, 1.0, 1.0, 2.0], size=5)
    history = toy.run(tmp_path)
    assert column(history, "kept") == [True, True, False, False]
    assert column(history, "valid") == [3, 1, 1, 2]
    assert [w for w, _ in toy.checked] == pytest.approx([-5 * LR * epoch for epoch in (1, 2, 3, 4)])
    assert toy.part.weight.item() == pytest.approx(-10 * LR)


@pytest.mark.parametrize("average", [0.0, 0.05, 0.9])
def test_averaged_weights_are_validated_and_kept_while_training_goes_on_from_the_others(average, tmp_path):
    """w after step k counts binomial(k + 8, 8) times, until 9 / (9 + step) is below 1 / (1 + average * 40)."""
    size, epochs = 10, 4
    toy = Toy([3.0, 1.0, 2.0, 2.0], size, cosine=True)
    history = toy.run(tmp_path, average=average)
    n = np.arange(size * epochs)
    lr = LR * np.minimum(1, (n + 1) / 5) * (1 + np.cos(np.pi * n / len(n))) / 2  # a warm-up of 1 + 40 // 10 steps
    assert column(history, "lr") == pytest.approx(lr[::size].tolist())
    w = np.concatenate([[0], -np.cumsum(lr)])
    np.testing.assert_allclose(toy.before, w[:-1], rtol=1e-5, atol=1e-7)
    counts = np.array([math.comb(k + 8, 8) for k in range(len(w))])
    expected = [np.average(w[: k + 1], weights=counts[: k + 1]) for k in range(len(w))]
    if average == 0.05:  # 1 / 3, which 9 / (9 + step) reaches at step 18
        for k in range(19, len(w)):
            expected[k] = 2 / 3 * expected[k - 1] + w[k] / 3
    expected = (expected if average else w)[size::size]
    assert [x for x, _ in toy.checked] == pytest.approx(list(expected), rel=1e-4)
    assert column(history, "kept") == [True, True, False, False]
    assert toy.part.weight.item() == pytest.approx(expected[1], rel=1e-4)


def test_gradients_are_clipped_by_value_before_the_step(tmp_path):
    """Adam's second step after gradients of 1 (100, clipped) and .1; unclipped ones would give .671."""
    toy = Toy([1.0], size=2, gradient=lambda step: {1: 100.0, 2: 0.1}[step])
    toy.run(tmp_path, clip=1.0)
    mean, square = (0.9 * 0.1 + 0.1 * 0.1) / 0.19, (0.999 * 0.001 + 0.001 * 0.01) / (1 - 0.999**2)
    assert toy.part.weight.item() == pytest.approx(-LR * (1 + mean / math.sqrt(square)), rel=1e-5)


def test_the_learning_rate_halves_where_no_epoch_is_better(tmp_path):
    lr = column(Toy([1.0] * 6).run(tmp_path, patience=1), "lr")
    assert lr == pytest.approx([LR, LR, LR, LR / 2, LR / 2, LR / 4])


@pytest.mark.parametrize("early_stop", [True, False])
def test_a_stage_ends_early_unless_it_must_not(early_stop, tmp_path):
    toy = Toy([3.0, 1.0, 2.0, 2.0, 0.5, 2.0], early_stop=early_stop)
    assert column(toy.run(tmp_path, early_stop=2), "epoch") == list(range(1, 5 if early_stop else 7))
    assert toy.part.weight.item() == pytest.approx(-LR * (2 if early_stop else 5))


def test_weights_decay(tmp_path):
    toy = Toy([1.0], size=3, start=1.0, decay=0.5, gradient=lambda step: 0.0)
    toy.run(tmp_path)
    assert toy.part.weight.item() == pytest.approx((1 - LR * 0.5) ** 3)


def test_each_epoch_has_other_batches_and_dropout_and_the_same_validation(tmp_path):
    size, epochs = 6, 4
    first, again, other = (Toy([1.0] * epochs, size) for _ in range(3))
    for toy, seed in ((first, 1), (again, 1), (other, 2)):
        toy.run(tmp_path / str(id(toy)), seed=seed)
    order = [[rows for (rows,) in first.rows[i : i + size]] for i in range(0, size * epochs, size)]
    assert all(sorted(rows) == list(range(size)) for rows in order)
    assert len({*map(tuple, order)}) == epochs
    for numbers in zip(*first.random, strict=True):  # of either generator
        assert len(set(numbers)) == size * epochs
    assert len({number for _, number in first.checked}) == 1
    assert (first.rows, first.random, first.checked) == (again.rows, again.random, again.checked)
    assert first.rows != other.rows and first.random != other.random
