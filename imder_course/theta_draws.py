"""Two moons: draws of theta given an observation x, exact ones and those of a trained model."""

import numpy as np
import torch

from imder_course.decoding import Decoder
from imder_lib.data.schema import Split
from imder_lib.data.two_moons import OFFSET, crescent
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.errors import UserError
from imder_lib.model.imder import IMDer
from imder_lib.model.recovery import encode_split

# The ten observations of the benchmark in sbibm 1.1.0 (MIT licence; Lueckmann et al., 2021).
OBSERVATIONS = np.array([
    [-0.6396706, 0.16234657], [-0.5676688, -0.33194834], [0.00301096, -0.6457662], [-0.25049388, 0.633055],
    [-0.66463584, -0.42604533], [-0.12940255, 0.3873573], [0.19458583, 1.0400153], [0.13603824, 0.9160449],
    [-0.17962828, -0.5452459], [0.14563406, -1.170141],
])  # fmt: skip
LEAST_ACCEPTED = 1e-4  # acceptance rate below which rejection sampling gives up
ROUNDS = 20  # of rejection, before it gives up


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
        p = crescent(max(2 * draws, 1000), rng)
        size, difference = p[:, 0] + OFFSET - x[0], x[1] - p[:, 1]
        total = size * rng.choice([-1, 1], len(p))
        theta = np.stack([total - difference, total + difference], axis=1) / np.sqrt(2)
        kept.append(theta[(size >= 0) & (np.abs(theta) <= 1).all(axis=1)])
        accepted, proposed = accepted + len(kept[-1]), proposed + len(p)
        if accepted < LEAST_ACCEPTED * proposed and proposed >= 10 / LEAST_ACCEPTED:
            raise UserError(f"expected an x that some theta in [-1, 1]^2 produces, got {x}")
    return np.concatenate(kept)[:draws]


def draws_of_theta(
    model: IMDer, observations: np.ndarray, draws: int, seed: int, inside_prior: bool = True
) -> np.ndarray:
    """Theta (O, draws, 2) given observations (O, 2). Each draw is a row with an id, and so noise, of its own.

    Args:
        model: trained on two moons.
        observations: x (O, 2).
        draws: of theta, for each observation.
        seed: of the noise.
        inside_prior: reject draws outside the prior's square [-1, 1]^2, where the posterior is zero, and draw again.

    Raises:
        UserError: nearly all draws are outside the prior.
    """
    found = [np.empty((0, 2), np.float32)] * len(observations)
    for k in range(ROUNDS + 1):
        todo = [i for i, kept in enumerate(found) if len(kept) < draws]
        if not todo:
            return np.stack([kept[:draws] for kept in found])
        for i, theta in zip(todo, _draw(model, observations, todo, draws, f"two_moons{k or ''}", seed), strict=True):
            inside = (np.abs(theta) <= 1).all(axis=1) | (not inside_prior)
            found[i] = np.concatenate([found[i], theta[inside]])
    raise UserError(f"observations {todo}: nearly all draws of theta are outside [-1, 1]^2; train longer")


def _draw(model: IMDer, observations: np.ndarray, rows: list[int], draws: int, stream: str, seed: int) -> np.ndarray:
    """Draws of theta (R, draws, 2) for some observations."""
    x = observations[rows].repeat(draws, axis=0)[:, None].astype(np.float32)
    ids = [f"two_moons/observation{i}/{j}" for i in rows for j in range(draws)]
    unknown = np.ones_like(x)  # missing, so never read; zeros would be padding
    latents = encode_split(model, Split({"theta": unknown, "x": x}, np.zeros(len(x), np.float32), ids, steps=1))
    available = torch.tensor([[m != "theta" for m in model.modalities]], device=latents["x"].device)
    drawn = model.recover(latents, available.repeat(len(x), 1), SampleNoise(seed, ids, stream))["theta"][0]
    theta = Decoder(model, steps=1)({"theta": drawn})["theta"]
    return theta[:, 0].cpu().numpy().reshape(len(rows), draws, 2)
