"""Predictions of a model for draws of a recoverer, each computed once."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from imder_lib.diffusion.noise import SampleNoise
from imder_lib.diffusion.samplers import Sampler
from imder_lib.experiment.parallel import over_batches
from imder_lib.model.imder import IMDer
from imder_lib.model.recovery import Latents, Recoverer, most_rows


def predict(
    model: IMDer,
    recoverer: Recoverer,
    latents: Latents,
    ids: Sequence[str],
    available: np.ndarray,
    seed: int,
    draws: int = 1,
    sampler: Sampler | None = None,
    batch_size: int = 0,  # as many as a pass has rows
) -> np.ndarray:
    """Predictions of the model's fusion for K draws of a recoverer: (K, N), or class probabilities (K, N, C).

    Args:
        latents: modality -> (N, D, T), true; those of missing modalities are not read.
        available: bool (N, M).
        seed: of the noise, which depends on (seed, id) alone.
        draws: K; 1 is used if the draws would be equal.
    """
    draws = draws if recoverer.stochastic and not available.all() else 1

    def run(rows: slice) -> Tensor:
        part = {m: x[rows] for m, x in latents.items()}
        mask = torch.from_numpy(available[rows]).to(part[model.modalities[0]].device)
        drawn = recoverer.recover(part, mask, SampleNoise(seed, ids[rows], "evaluate"), draws, sampler)
        each = model.predict(drawn, mask, refine=recoverer is model.recoverer)
        return (each[..., 0] if model.config.fusion.outputs == 1 else each.softmax(dim=-1)).cpu()

    device = latents[model.modalities[0]].device
    return torch.cat(over_batches(len(ids), batch_size or most_rows(device), run, device), dim=1).numpy()


class Predictor:
    """Predictions of one method for n samples, computed once per sample and pattern and shared by all protocols.

    ``predict``: (rows (r,), available bool (r, M)) -> predictions of K draws, (K, r) or (K, r, C).
    """

    def __init__(self, predict: Callable[[np.ndarray, np.ndarray], np.ndarray], n: int) -> None:
        self.predict, self.n = predict, n
        self.known: dict[int, np.ndarray] = {}  # pattern code -> mean and spread (2, n, ...), NaN until computed

    def __call__(self, available: np.ndarray) -> np.ndarray:
        """Mean and standard deviation of the draws under ``available`` (n, M): (2, n), or (2, n, C) for classes."""
        out = None
        codes = available @ 2 ** np.arange(available.shape[1])
        for code in np.unique(codes):
            rows = np.flatnonzero(codes == code)
            known = self.known.get(int(code))
            todo = rows if known is None else rows[np.isnan(known[0, rows]).reshape(len(rows), -1).any(axis=1)]
            if len(todo):
                each = self.predict(todo, available[todo])
                if known is None:
                    known = self.known[int(code)] = np.full((2, self.n, *each.shape[2:]), np.nan)
                known[0, todo] = each.mean(axis=0)
                known[1, todo] = each.std(axis=0, ddof=1) if len(each) > 1 else 0.0
            out = np.empty_like(known) if out is None else out
            out[:, rows] = known[:, rows]
        return out
