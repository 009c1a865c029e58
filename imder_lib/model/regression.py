"""The linear estimate of what is missing: reduced-rank ridge regression on time windows of what is available.

For each pattern of available modalities, the latents of a missing one at step t are a linear function of window
averages around t of the available ones. One set of second moments of all windows, per fold, serves every pattern.
Penalty and rank are chosen by cross-validation; training samples can be estimated by a fit that never saw them.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

REACH = 15  # steps to each side, in windows of 1, 2, 4, 8 steps
FOLDS = 5
# Times the number of frames; inputs have variance 1. The last two serve small data of one step each.
PENALTIES = tuple(10.0**k for k in (-3.5, -2.75, -2.0, -1.25, -0.5, 0.25, 1.0))
RANKS = (1, 2, 3, 4, 6, 8, 12, 16)


def windows(x: Tensor) -> Tensor:
    """x (N, C, T) and its averages over steps 1, 2..3, 4..7, 8..15 before and after: (N, T, K C), x itself first.

    Steps outside the sequence count as zero.
    """
    T = x.shape[-1]
    total, t, out = F.pad(x.cumsum(-1), (1, 0)), torch.arange(T, device=x.device), [x]
    near = 1
    while near <= REACH:
        far = 2 * near - 1
        for start, end in ((t - far, t - near + 1), (t + near, t + far + 1)):
            out.append((total[..., end.clamp(0, T)] - total[..., start.clamp(0, T)]) / near)
        near *= 2
    return torch.cat(out, dim=1).transpose(1, 2)


class LinearMean(nn.Module):
    """E[missing | available] for every pattern, on standardised latents.

    Args:
        modalities, dim: M and D.
    """

    def __init__(self, modalities: int, dim: int) -> None:
        super().__init__()
        self.M, self.D = modalities, dim
        self.K = windows(torch.zeros(1, 1, 1)).shape[-1]
        # by pattern code (bit i: modality i is available): window inputs to latents
        self.register_buffer("weight", torch.zeros(2**modalities, self.K * modalities * dim, modalities * dim))
        self.folds: Tensor | None = None  # (FOLDS, ...): fits that left one fold of the training samples out

    def forward(self, latents: Tensor, available: Tensor, fold: Tensor | None = None) -> Tensor:
        """Estimates (B, M, D, T) from latents (B, M, D, T), which are read only where available (B, M).

        ``fold``: (B,), use the fit that left this fold out; None: the fit on all.
        """
        M, D = latents.shape[1:3]
        here = (latents * available[:, :, None, None]).flatten(1, 2)
        code = (available * 2 ** torch.arange(M, device=available.device)).sum(dim=1)
        weight = self.weight[code] if fold is None else self.folds[fold, code]  # (B, K M D, M D)
        return (windows(here) @ weight).transpose(1, 2).unflatten(1, (M, D))

    @torch.no_grad()
    def fit(self, latents: Tensor, chunk: int = 256) -> Tensor:
        """Fit every pattern on complete latents (N, M, D, T); returns the fold of each sample, (N,)."""
        N, M, D, T = latents.shape
        fold = torch.arange(N, device=latents.device) % min(FOLDS, N)
        size = self.K * M * D
        moments = torch.zeros(FOLDS, size, size, dtype=torch.float64, device=latents.device)
        for f in range(FOLDS):
            for part in latents[fold == f].split(chunk):
                w = windows(part.flatten(1, 2)).flatten(0, 1).double()
                moments[f] += w.T @ w
        weights = torch.zeros(FOLDS + 1, *self.weight.shape, dtype=torch.float64, device=latents.device)
        for code, inputs, missing in self._patterns():
            self._fit_pattern(moments, N * T, inputs, missing, weights[:, code])
        self.weight.copy_(weights[-1])
        self.folds = weights[:-1].float()
        return fold

    def _patterns(self) -> Iterator[tuple[int, Tensor, list[Tensor]]]:
        """Of each incomplete pattern: its code, its columns of the windows, and those of each missing modality."""
        column = torch.arange(self.K * self.M * self.D).view(self.K, self.M, self.D)
        for code in range(1, 2**self.M - 1):
            here = [m for m in range(self.M) if code >> m & 1]
            gone = [m for m in range(self.M) if not code >> m & 1]
            yield code, column[:, here].flatten(), [column[0, m] for m in gone]

    @staticmethod
    def _fit_pattern(moments: Tensor, frames: int, inputs: Tensor, missing: list[Tensor], out: Tensor) -> None:
        """Write the fits that leave out each fold, and the one on all, into ``out`` (FOLDS + 1, K M D, M D)."""
        total = moments.sum(0)
        kept = [total - m for m in moments] + [total]
        gram = [k[inputs][:, inputs] for k in kept]
        held = [m[inputs][:, inputs] for m in moments]
        white, back = zip(*(_whitening(total[t][:, t]) for t in missing), strict=True)
        cross = [torch.stack([k[inputs][:, t] @ w for t, w in zip(missing, white, strict=True)]) for k in kept]
        errors, fits = [], []
        for penalty in PENALTIES:
            ridge = penalty * frames * torch.eye(len(inputs), dtype=total.dtype, device=total.device)
            # (targets, inputs, D) for each fit, and the directions of its outputs by explained variance
            W = [torch.cholesky_solve(c, torch.linalg.cholesky(g + ridge)) for g, c in zip(gram, cross, strict=True)]
            P = [torch.linalg.eigh(w.mT @ g @ w)[1].flip(-1) for g, w in zip(gram, W, strict=True)]
            fits.append((W, P))
            error = 0.0
            for i, h in enumerate(held):  # held-out error of the first r directions: a running sum over directions
                w, c = W[i] @ P[i], (cross[-1] - cross[i]) @ P[i]
                error = error + ((h @ w * w).sum(1) - 2 * (w * c).sum(1)).cumsum(-1)
            errors.append(error)
        table = torch.stack(errors)  # (penalties, targets, D)
        ranks = [r for r in RANKS if r < table.shape[2]] + [table.shape[2]]
        for j, target in enumerate(missing):
            best = table[:, j, [r - 1 for r in ranks]]
            k, r = divmod(int(best.argmin()), len(ranks))
            W, P = fits[k]
            for i in range(len(kept)):
                directions = P[i][j, :, : ranks[r]]
                out[i][inputs[:, None], target] = W[i][j] @ directions @ directions.T @ back[j]


def _whitening(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix that decorrelates outputs before their rank is cut, and its inverse; both (D, D)."""
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=1e-3 * values.max())
    return vectors * values.rsqrt() @ vectors.T, vectors * values.sqrt() @ vectors.T
