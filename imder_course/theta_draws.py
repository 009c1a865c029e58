"""What a model trained on two moons draws for theta, given an observation x."""

import numpy as np
import torch

from imder_course.decoding import Decoder
from imder_lib.data.schema import Split
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.errors import UserError
from imder_lib.model.imder import IMDer
from imder_lib.model.recovery import encode_split

ROUNDS = 20  # of rejection, before it gives up


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
