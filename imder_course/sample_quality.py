"""Sample quality: do recovered latents follow the conditional distribution of the missing ones?"""

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


def sample_quality(
    recovered: np.ndarray,
    truth: np.ndarray,
    condition: np.ndarray,
    posterior: np.ndarray | None = None,
    seed: int = 0,
    against: np.ndarray | None = None,
) -> pd.DataFrame:
    """Compare recovered latents with the truth and with the conditional mean.

    Correlations are taken over all samples and elements, so latents should be standardised. Elements that are constant
    over samples (unused channels) are left out: trivially predictable channels would inflate the score.

    Args:
        recovered: (K, N, ...), K draws of missing latents.
        truth: (N, ...).
        condition: (N, ...), available latents; read only if ``posterior`` is None.
        posterior: (N, ...), exact conditional mean; None: estimated by ridge regression.
        seed: of projections and resamples.
        against: (K, N, ...), other draws for the same samples. The table then holds the paired differences, recovered
            minus against, which can be significant although the intervals of two separate tables overlap.

    Returns:
        One row per metric with columns metric, value, low, high (95 % bootstrap interval over samples).
        mse: squared error of the first draw, divided by the variance of the truth. corr_one, corr_mean: correlation of
        the first draw, and of the mean of all, with the conditional mean. variance_ratio: variance of the first draw
        divided by that of the truth. energy: energy score per sample, E|X - y| - E|X - X'| / 2, lower is better (needs
        K >= 2). cover50, cover80, cover95: share of true elements in the central Student-t interval of the draws (needs
        K >= 3). sliced_w2: sliced Wasserstein distance from all first draws to all truths, in standard deviations.

    Raises:
        UserError: wrong shapes, or values that are not finite.
    """
    if against is not None and np.shape(against) != np.shape(recovered):
        raise UserError(f"against: expected the shape of recovered, {np.shape(recovered)}, got {np.shape(against)}")
    values = _resampled(recovered, truth, condition, posterior, seed)
    if against is not None:
        values = values - _resampled(against, truth, condition, posterior, seed)
    low, high = values.iloc[1:].quantile(0.025), values.iloc[1:].quantile(0.975)
    table = pd.DataFrame({"value": values.iloc[0], "low": low, "high": high})
    return table.rename_axis("metric").reset_index()


def _resampled(
    recovered: np.ndarray, truth: np.ndarray, condition: np.ndarray, posterior: np.ndarray | None, seed: int
) -> pd.DataFrame:
    """Metrics of all samples (first row) and of RESAMPLES resamples."""
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
        raise UserError("truth is the same for every sample: expected some variance")
    if posterior is None:  # out-of-fold predictions
        ridge = RidgeCV(10.0 ** np.arange(-1, 6))
        posterior = cross_val_predict(ridge, np.asarray(condition).reshape(N, -1), y, cv=min(5, N))
    mean = np.asarray(posterior, dtype=np.float64).reshape(N, -1)[:, varies]
    x, y = x[..., varies], y[:, varies]
    rng = np.random.default_rng(seed)
    rows = np.stack([np.arange(N), *rng.integers(0, N, (RESAMPLES, N))])

    def resampled(each: np.ndarray, size: int = N) -> np.ndarray:
        """Sums over the samples of each resample, divided by ``size``."""
        return each[rows].sum(axis=1) / size

    def moments(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Covariance and variances of a and b (N, P) over samples and elements."""
        products = [v.sum(axis=1) for v in (a, b, a * b, a * a, b * b)]
        a, b, ab, aa, bb = resampled(np.stack(products, axis=1), y.size).T
        return ab - a * b, aa - a * a, bb - b * b

    def correlation(a: np.ndarray) -> np.ndarray:
        """Correlation with the conditional mean; 0 if one of them is constant."""
        covariance, va, vb = moments(a, mean)
        varied = (va > 1e-12) & (vb > 1e-12)
        return np.where(varied, covariance / np.sqrt(np.where(varied, va * vb, 1.0)), 0.0)

    variance = moments(y, y)[0]
    out = {"mse": resampled(((x[0] - y) ** 2).sum(axis=1), y.size) / variance}
    out |= {"corr_one": correlation(x[0]), "corr_mean": correlation(x.mean(0))}
    out["variance_ratio"] = moments(x[0], x[0])[0] / variance
    if K > 1:
        norm = lambda v: np.linalg.norm(v, axis=-1)  # noqa: E731
        apart = np.mean([norm(x[i] - x[j]) for i in range(K) for j in range(i)], axis=0)
        out["energy"] = resampled(norm(x - y).mean(0) - apart / 2)
    if K > 2:
        off = np.abs(y - x.mean(0)) / (x.std(0, ddof=1) * np.sqrt(1 + 1 / K) + 1e-12)
        out |= {f"cover{p}": resampled((off <= student.ppf(0.5 + p / 200, K - 1)).mean(1)) for p in LEVELS}
    sw = ot.sliced_wasserstein_distance(x[0], y, n_projections=PROJECTIONS, seed=seed) / y.std()
    return pd.DataFrame(out).assign(sliced_w2=[sw] + [float("nan")] * RESAMPLES)  # not resampled: slow
