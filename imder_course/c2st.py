"""c2st: classifier two-sample test."""

import numpy as np
from sklearn.model_selection import KFold, cross_val_score
from sklearn.neural_network import MLPClassifier

from imder_lib.errors import UserError

FOLDS = 5


def c2st(x: np.ndarray, y: np.ndarray, seed: int = 1) -> float:
    """Classifier two-sample test (Lopez-Paz & Oquab, 2017) as sbibm defines it (Lueckmann et al., 2021).

    Args:
        x: (N, d), the reference; its mean and standard deviation standardise both sets.
        y: (N, d).
        seed: of the classifier and of the folds.

    Returns:
        Cross-validated accuracy of a small network: .5 if the sets cannot be distinguished, 1 if they always can. If
        the sets differ, it increases with N: compare only values with the same N.

    Raises:
        UserError: different shapes, values that are not finite, or a constant column of x.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 2 or x.shape != y.shape or len(x) < FOLDS or not x.shape[1]:
        raise UserError(f"expected x and y of one shape (N, d) with N >= {FOLDS}, got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UserError("x and y must be finite")
    if (constant := (x == x[0]).all(axis=0)).any():
        raise UserError(f"expected every column of x to vary, column {int(constant.argmax())} is constant")
    mean, std = x.mean(axis=0), x.std(axis=0, ddof=1)
    inputs = ((np.concatenate([x, y]) - mean) / std).astype(np.float32)  # sbibm's precision
    width = 10 * x.shape[1]
    net = MLPClassifier((width, width), activation="relu", solver="adam", max_iter=10000, random_state=seed)
    folds = KFold(FOLDS, shuffle=True, random_state=seed)
    return float(cross_val_score(net, inputs, np.repeat([0, 1], len(x)), cv=folds, scoring="accuracy").mean())
