"""sample quality: are recovered latents samples of what is missing, given what is available?"""

import numpy as np
import ot
import pandas as pd
from scipy.stats import t as student
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict

from imder_lib.errors import UserError
from imder_lib.experiment.metrics import LEVELS

RESAMPLES = 200
PROJECTIONS = 64


def conditional_mean(truth: np.ndarray, condition: np.ndarray) -> np.ndarray:
    """The regressed conditional mean of truth (N, P) given condition (N, Q): cross-validated ridge, out of fold."""
    folds = min(5, len(truth))
    return cross_val_predict(RidgeCV(10.0 ** np.arange(-1, 6)), condition, truth, cv=folds).reshape(truth.shape)


def sample_quality(
    recovered: np.ndarray,
    truth: np.ndarray,
    condition: np.ndarray,
    posterior: np.ndarray | None = None,
    seed: int = 0,
    against: np.ndarray | None = None,
) -> pd.DataFrame:
    """How recovered latents compare with the truth and with the conditional mean.

    The posterior check is what draws of the exact posterior give in this same function. Correlations are taken over all
    samples and elements; give standardised latents, so that every channel counts alike. Elements that are the same in
    every sample (an encoder's unused channels) are left out: whoever repeats them would look certain and right.

    Args:
        recovered: (K, N, ...) K draws of what is missing.
        truth: (N, ...).
        condition: (N, ...) what is available; read only without a posterior.
        posterior: (N, ...) the exact conditional mean, where it is known; else a ridge regression stands in for it.
        seed: of projections and resamples.
        against: (K, N, ...) other draws for the same samples. Then the table holds recovered minus against, each
            resample the same for both: on the same samples two intervals can overlap where the difference is sure.

    Returns:
        One row a metric with columns metric, value, low, high (95 % bootstrap interval over samples).
        mse: squared error of one draw to the truth, over the truth's variance. corr_one, corr_mean: correlation of the
        first draw, and of the mean of all, with the conditional mean. variance_ratio: of one draw to the truth.
        energy: energy score per sample, E|X - y| - E|X - X'| / 2, lower is better (needs K >= 2). cover50, cover80,
        cover95: share of true elements in the central Student-t interval of the draws (needs K >= 3). sliced_w2:
        sliced Wasserstein distance of the set of first draws to the set of truths, in standard deviations.

    Raises:
        UserError: shapes that do not fit, or numbers that are not finite.
    """
    if against is not None and np.shape(against) != np.shape(recovered):
        raise UserError(f"against: expected as many draws, {np.shape(recovered)}, got {np.shape(against)}")
    values = _resampled(recovered, truth, condition, posterior, seed)
    if against is not None:
        values = values - _resampled(against, truth, condition, posterior, seed)
    low, high = values.iloc[1:].quantile(0.025), values.iloc[1:].quantile(0.975)
    table = pd.DataFrame({"value": values.iloc[0], "low": low, "high": high})
    return table.rename_axis("metric").reset_index()


def _resampled(
    recovered: np.ndarray, truth: np.ndarray, condition: np.ndarray, posterior: np.ndarray | None, seed: int
) -> pd.DataFrame:
    """Each metric of all samples, in the first row, and of RESAMPLES resamples."""
    K, N = np.shape(recovered)[:2] if np.ndim(recovered) >= 3 else (0, 0)
    x = np.asarray(recovered, dtype=np.float64).reshape(K, N, -1)
    y = np.asarray(truth, dtype=np.float64)
    if not K or y.shape != np.shape(recovered)[1:] or len(condition) != N:
        raise UserError(
            f"expected recovered (K, N, ...), truth (N, ...), condition (N, ...); got {np.shape(recovered)}, "
            f"{y.shape} and {np.shape(condition)}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise UserError("recovered and truth must be finite")
    y = y.reshape(N, -1)
    varies = y.std(axis=0) > 1e-6 * y.std()
    if not varies.any():
        raise UserError("truth is the same for every sample: there is nothing to compare")
    mean = conditional_mean(y, np.asarray(condition).reshape(N, -1)) if posterior is None else posterior
    mean = np.asarray(mean, dtype=np.float64).reshape(N, -1)[:, varies]
    x, y = x[..., varies], y[:, varies]
    sums = {"mse": ((x[0] - y) ** 2).sum(1), "var": _moments(y, y), "one": _moments(x[0], x[0])}
    sums |= {"corr_one": _moments(x[0], mean), "corr_mean": _moments(x.mean(0), mean)}
    if K > 1:
        norm = lambda v: np.linalg.norm(v, axis=-1)  # noqa: E731
        apart = np.mean([norm(x[i] - x[j]) for i in range(K) for j in range(i)], axis=0)
        sums["energy"] = norm(x - y).mean(0) - apart / 2
    if K > 2:
        off = np.abs(y - x.mean(0)) / (x.std(0, ddof=1) * np.sqrt(1 + 1 / K) + 1e-12)
        sums |= {f"cover{p}": (off <= student.ppf(0.5 + p / 200, K - 1)).mean(1) for p in LEVELS}
    rng = np.random.default_rng(seed)
    resamples = [np.arange(N), *rng.integers(0, N, (RESAMPLES, N))]
    values = pd.DataFrame([_values({k: v[r].sum(0) for k, v in sums.items()}, N, y.shape[1]) for r in resamples])
    sw = ot.sliced_wasserstein_distance(x[0], y, n_projections=PROJECTIONS, seed=seed) / y.std()
    return values.assign(sliced_w2=[sw] + [float("nan")] * RESAMPLES)  # once: slow, and it is of the set


def _moments(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Each sample's part of the first and second moments: (N, 5)."""
    return np.stack([a.sum(1), b.sum(1), (a * b).sum(1), (a * a).sum(1), (b * b).sum(1)], axis=1)


def _values(sums: dict[str, np.ndarray], n: int, size: int) -> dict[str, float]:
    def interval_of(key: str) -> tuple[float, float, float]:
        """Covariance and variances."""
        a, b, ab, aa, bb = sums[key] / (n * size)
        return ab - a * b, aa - a * a, bb - b * b

    variance = interval_of("var")[0]
    out = {"mse": sums["mse"] / (n * size) / variance}
    for key in ("corr_one", "corr_mean"):
        cov, va, vb = interval_of(key)
        out[key] = cov / np.sqrt(va * vb) if va > 1e-12 and vb > 1e-12 else 0.0
    out["variance_ratio"] = interval_of("one")[0] / variance
    out |= {k: sums[k] / n for k in ("energy", *(f"cover{p}" for p in LEVELS)) if k in sums}
    return {k: float(v) for k, v in out.items()}
