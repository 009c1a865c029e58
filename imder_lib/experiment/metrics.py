"""Metrics for sentiment, as in MMSA and the release, metrics for classes, losses."""

import math
from functools import partial

import numpy as np
import torch.nn.functional as F
from scipy.special import ndtri
from torch import Tensor

from imder_lib.errors import UserError

SENTIMENT = ("acc2", "f1", "acc2_has0", "f1_has0", "acc5", "acc7")  # for sentiments in [-3, 3] only
METRICS = (*SENTIMENT, "mae", "corr")
LEVELS = (50, 80, 95)  # of central intervals, in percent


def metrics(prediction: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """All metrics of finite predictions and labels (N,).

    acc2, f1: classes > 0 and <= 0, on samples whose label is not 0. acc2_has0, f1_has0: classes >= 0 and < 0, on all
    samples. F1 is weighted by class support. acc5, acc7: accuracy after clipping to [-2, 2] or [-3, 3] and rounding.
    mae: in units of the label. corr: Pearson correlation, 0 if predictions or labels are constant. acc2 and f1 are NaN
    if every label is 0.
    """
    from sklearn.metrics import accuracy_score, f1_score  # here and not above: slow to import

    p, y = np.asarray(prediction, float).reshape(-1), np.asarray(label, float).reshape(-1)
    if p.shape != y.shape or not len(y):
        raise UserError(f"expected one prediction per label, got {p.shape} and {y.shape}")
    for name, x in (("prediction", p), ("label", y)):
        if not np.isfinite(x).all():
            row = int((~np.isfinite(x)).argmax())
            raise UserError(f"expected finite numbers, got {x[row]} as {name} of row {row}")
    weighted = partial(f1_score, average="weighted", zero_division=0)
    out, some = dict.fromkeys(METRICS, float("nan")), y != 0
    if some.any():
        out["acc2"], out["f1"] = (score(y[some] > 0, p[some] > 0) for score in (accuracy_score, weighted))
    out["acc2_has0"], out["f1_has0"] = (score(y >= 0, p >= 0) for score in (accuracy_score, weighted))
    for name, limit in (("acc5", 2), ("acc7", 3)):
        out[name] = accuracy_score(*(np.round(np.clip(v, -limit, limit)).astype(int) for v in (y, p)))
    out["mae"] = np.abs(p - y).mean()
    varies = p.std() > 1e-12 and y.std() > 1e-12
    out["corr"] = np.corrcoef(p, y)[0, 1] if varies else 0.0
    return {k: float(v) for k, v in out.items()}


def task_loss(prediction: Tensor, labels: Tensor, reduction: str = "mean") -> Tensor:
    """Training loss of the fusion for labels (B, 1): L1 for numbers (B, 1), cross-entropy for logits (B, C)."""
    if labels.is_floating_point():
        return F.l1_loss(prediction, labels, reduction=reduction)
    return F.cross_entropy(prediction, labels[:, 0], reduction=reduction)


def mean_prediction(each: Tensor) -> Tensor:
    """The average (B, outputs) of predictions of K draws (K, B, outputs); logits are averaged as probabilities."""
    return each.mean(dim=0) if each.shape[-1] == 1 else each.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(each))


def class_metrics(probability: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Metrics for classes: acc, f1_weighted (by class support), f1_macro (unweighted).

    Args:
        probability: (N, C), finite; the class of largest probability is the prediction.
        label: (N,), integers from 0 to C - 1.
    """
    from sklearn.metrics import accuracy_score, f1_score

    p, y = np.asarray(probability, float), np.asarray(label).reshape(-1)
    if p.ndim != 2 or len(p) != len(y) or not len(y) or not np.isfinite(p).all():
        raise UserError(f"expected finite probabilities (N, C), one row per label, got {p.shape} and {y.shape}")
    if y.min() < 0 or y.max() >= p.shape[1]:
        raise UserError(f"labels are {y.min()} to {y.max()}, expected 0 to {p.shape[1] - 1} for {p.shape[1]} classes")
    guess = p.argmax(axis=1)
    f1 = {f"f1_{kind}": f1_score(y, guess, average=kind, zero_division=0) for kind in ("weighted", "macro")}
    return {k: float(v) for k, v in ({"acc": accuracy_score(y, guess)} | f1).items()}


def coverage(mean: np.ndarray, std: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """Share of labels in the central 50, 80 and 95 % intervals of normals (N,); NaN if a deviation is not known."""
    off, known = np.abs(np.asarray(label) - mean) / std, not np.isnan(std).any()
    return {f"cover{p}": float(np.mean(off <= ndtri(0.5 + p / 200))) if known else math.nan for p in LEVELS}
