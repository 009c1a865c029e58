"""Batches at once: order, gradients and errors."""

import threading
import time

import pytest
import torch

from imder_lib.experiment import parallel
from imder_lib.experiment.parallel import idle_cores, over_batches


@pytest.mark.parametrize("cores", [1, 3])
def test_results_come_in_order_whatever_runs_at_once(cores, monkeypatch):
    monkeypatch.setattr(parallel, "idle_cores", lambda device: cores)
    seen = over_batches(10, 4, lambda rows: (rows.start, rows.stop, torch.is_grad_enabled()), "cpu")
    assert seen == [(0, 4, False), (4, 8, False), (8, 10, False)]


def test_batches_run_at_once_where_cores_are_idle(monkeypatch):
    monkeypatch.setattr(parallel, "idle_cores", lambda device: 2)
    both = threading.Barrier(2, timeout=30)  # passes only if two batches are in it at once
    assert sorted(over_batches(2, 1, lambda rows: both.wait(), "cpu")) == [0, 1]


def test_an_error_stops_the_batches_that_wait(monkeypatch):
    monkeypatch.setattr(parallel, "idle_cores", lambda device: 2)
    started = []

    def run(rows: slice) -> None:
        started.append(rows.start)
        time.sleep(0.01)  # so that the error is seen before all have started
        raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        over_batches(1000, 1, run, "cpu")
    assert len(started) < 1000


def test_a_gpu_runs_one_batch_after_the_other():
    assert idle_cores("cuda") == 1 and idle_cores("cpu") >= 1
