"""Two moons (Greenberg et al., 2019): the posterior of modality theta given x is two crescents, known exactly.

theta ~ uniform in [-1, 1]^2
p = rho (cos a, sin a),   a ~ uniform in (-pi/2, pi/2),   rho ~ N(.1, .01^2)
x = (p_1 + .25 - |theta_1 + theta_2| / sqrt 2,   p_2 + (theta_2 - theta_1) / sqrt 2)
"""

import hashlib

import numpy as np

from imder_lib.data.schema import Counts, MultimodalData, Split, checked_sizes
from imder_lib.errors import UserError

SIZES = {"train": 10000, "valid": 1000, "test": 1000}
OFFSET = 0.25
# The ten observations of the benchmark in sbibm 1.1.0 (MIT licence; Lueckmann et al., 2021).
OBSERVATIONS = np.array([
    [-0.6396706, 0.16234657], [-0.5676688, -0.33194834], [0.00301096, -0.6457662], [-0.25049388, 0.633055],
    [-0.66463584, -0.42604533], [-0.12940255, 0.3873573], [0.19458583, 1.0400153], [0.13603824, 0.9160449],
    [-0.17962828, -0.5452459], [0.14563406, -1.170141],
])  # fmt: skip
LEAST_ACCEPTED = 1e-4  # acceptance rate below which rejection sampling gives up


def _crescent(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draws of p: (n, 2)."""
    angle, radius = rng.uniform(-np.pi / 2, np.pi / 2, n), rng.normal(0.1, 0.01, n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def simulate(theta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws of x (N, 2) given theta (N, 2)."""
    theta = np.asarray(theta, dtype=np.float64)
    if theta.ndim != 2 or theta.shape[1] != 2:
        raise UserError(f"expected theta (N, 2), got {theta.shape}")
    total, difference = (theta[:, 0] + theta[:, 1]) / np.sqrt(2), (theta[:, 1] - theta[:, 0]) / np.sqrt(2)
    return _crescent(len(theta), rng) + np.stack([OFFSET - np.abs(total), difference], axis=1)


def two_moons_posterior(x: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Exact draws of theta (draws, 2) given x (2,); a UserError for an x that (almost) no theta produces.

    Given the sign of theta_1 + theta_2, the map from p to theta is linear with determinant +-1. So p and a random sign
    give a draw of theta, which is rejected outside the prior's square or if |theta_1 + theta_2| would be negative.
    """
    x = np.asarray(x, dtype=np.float64)
    if x.shape != (2,) or not np.isfinite(x).all() or draws < 1:
        raise UserError(f"expected x of 2 finite numbers and draws >= 1, got x {x} of shape {x.shape}, draws {draws}")
    kept, accepted, proposed = [], 0, 0
    while accepted < draws:
        p = _crescent(max(2 * draws, 1000), rng)
        size, difference = p[:, 0] + OFFSET - x[0], x[1] - p[:, 1]
        total = size * rng.choice([-1, 1], len(p))
        theta = np.stack([total - difference, total + difference], axis=1) / np.sqrt(2)
        kept.append(theta[(size >= 0) & (np.abs(theta) <= 1).all(axis=1)])
        accepted, proposed = accepted + len(kept[-1]), proposed + len(p)
        if accepted < LEAST_ACCEPTED * proposed and proposed >= 10 / LEAST_ACCEPTED:
            raise UserError(f"expected an x that some theta in [-1, 1]^2 produces, got {x}")
    return np.concatenate(kept)[:draws]


def two_moons(sizes: Counts = None, seed: int = 0) -> MultimodalData:
    """Two moons as modalities theta (N, 1, 2) and x (N, 1, 2) with T = 1; the label (N,) is theta_1."""
    sizes, splits = checked_sizes(sizes, SIZES), {}
    for i, (name, n) in enumerate(sizes.items()):
        rng = np.random.default_rng([seed, i])
        theta = rng.uniform(-1, 1, (n, 2))
        pair = {"theta": theta, "x": simulate(theta, rng)}
        features = {m: v[:, None].astype(np.float32) for m, v in pair.items()}
        splits[name] = Split(features, theta[:, 0].astype(np.float32), [f"two_moons/{name}/{j}" for j in range(n)], 1)
    return MultimodalData("two_moons", splits, hashlib.sha256(repr(("two_moons", sizes, seed)).encode()).hexdigest())
