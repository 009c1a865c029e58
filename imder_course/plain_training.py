"""A recoverer trained by the plain loop of notebook 04: to compare rules on equal terms in minutes."""

from collections.abc import Mapping

import torch
from torch import Tensor

from imder_lib.model.imder import IMDer


def train_recoverer(
    model: IMDer, latents: Mapping[str, Tensor], available: Tensor, steps: int, seed: int, batch: int = 32
) -> IMDer:
    """Train the recoverer on one pattern and set the model to eval mode; its other parts stay as they are.

    Adam at a learning rate that falls on a cosine, with clipped gradients. The same seed gives the same batches,
    whatever the model.

    Args:
        model: changed in place and returned.
        latents: modality -> (N, D, T) of the training split.
        available: the pattern, bool (1, M).
        steps: of training, ``batch`` samples each.
        seed: of batches and noise.
    """
    device, count = available.device, len(latents[model.modalities[0]])
    model.recoverer.prepare(latents)
    optimiser = torch.optim.Adam(model.recoverer.parameters(), 2e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        rows = torch.randint(count, (batch,), generator=generator).to(device)
        part = {m: x[rows] for m, x in latents.items()}
        loss = sum(model.recoverer.losses(part, available.repeat(batch, 1), generator).values())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_value_(model.recoverer.parameters(), 1.0)
        optimiser.step()
        rate.step()
    return model.eval()
