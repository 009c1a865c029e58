"""What a model trained on two moons draws for theta, given an observation x."""

import numpy as np
import torch

from imder_lib.data.schema import Split
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.model.decoding import Decoder
from imder_lib.model.imder import IMDer
from imder_lib.model.recovery import encode_split


def draws_of_theta(model: IMDer, observations: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Theta (O, draws, 2) given observations (O, 2). Each draw is a row with an id, and so noise, of its own."""
    x = observations.repeat(draws, axis=0)[:, None].astype(np.float32)
    ids = [f"two_moons/observation{i}/{j}" for i in range(len(observations)) for j in range(draws)]
    unknown = np.ones_like(x)  # missing, so never read; zeros would be padding
    latents = encode_split(model, Split({"theta": unknown, "x": x}, np.zeros(len(x), np.float32), ids, steps=1))
    available = torch.tensor([[m != "theta" for m in model.modalities]], device=latents["x"].device)
    drawn = model.recover(latents, available.repeat(len(x), 1), SampleNoise(seed, ids, "two_moons"))["theta"][0]
    theta = Decoder(model, steps=1)({"theta": drawn})["theta"]
    return theta[:, 0].cpu().numpy().reshape(len(observations), draws, 2)
