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


def crescent(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draws of p: (n, 2)."""
    angle, radius = rng.uniform(-np.pi / 2, np.pi / 2, n), rng.normal(0.1, 0.01, n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def simulate(theta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws of x (N, 2) given theta (N, 2)."""
    theta = np.asarray(theta, dtype=np.float64)
    if theta.ndim != 2 or theta.shape[1] != 2:
        raise UserError(f"expected theta (N, 2), got {theta.shape}")
    total, difference = (theta[:, 0] + theta[:, 1]) / np.sqrt(2), (theta[:, 1] - theta[:, 0]) / np.sqrt(2)
    return crescent(len(theta), rng) + np.stack([OFFSET - np.abs(total), difference], axis=1)


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
