"""The linear estimate of what is missing: reduced-rank ridge regression on windows of what is available.

For each pattern of available modalities, the latents of a missing one at step t are a linear function of exponential
windows around t of the available ones. Few directions of a modality's channels matter, whatever the window: a first
fit on all channels finds them, a second one regresses on them alone. One set of second moments of all windows, per
fold, serves every pattern. What there is to choose, the windows among it, is chosen by cross-validation; training
samples can be estimated by a fit that never saw them.
"""

import math
from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor, nn

SPANS = (1, 2, 4, 6, 8)  # steps
SETS = ((6,), (1, 2, 4, 8))  # of spans: few weights, or many shapes
# The best estimate of a steady process near an end is that of an endless one with an image added: none of it where
# steps are independent, all of it where they hardly change, a fifth where one step says little and is .9 of the next.
MIRROR = 0.2
# A latent sees three frames. The outermost frames show in the last latent alone, so that it stands for one more.
END = 1.0
# The windows of each set: x itself, then the sum and the difference of each span.
BLOCKS = [[0] + [2 * SPANS.index(s) + k for s in spans for k in (1, 2)] for spans in SETS]
FOLDS = 5
# Times the number of frames; inputs have variance 1. The last two serve small data of one step each.
PENALTIES = tuple(10.0**k for k in (-3.5, -2.75, -2.0, -1.25, -0.5, 0.25, 1.0))
# What a weight is expected to be before data: in proportion to a channel's deviation to this power (0: all alike, 1:
# strong channels count), and to this share where before and after count differently (1: alike).
PRIORS = ((0.0, 1.0), (1.0, 1.0), (1.0, 0.1))
RANKS = (1, 2, 3, 4, 6, 8, 12, 16)  # of the outputs
DIRECTIONS = (1, 2, 3, 4, 6)  # of the channels of each available modality, in the second fit


def windows(x: Tensor) -> Tensor:
    """x (N, C, T) and its exponential windows before and after each step: (N, T, K C), x itself first.

    A neighbour k steps away counts exp((1 - k) / span), for each of SPANS. Of each pair of windows stand the sum and
    the difference, over the root of 2: what is the same before and after needs half the weights. Beyond its ends the
    sequence goes on as its last value, at the share END, and its mirror image, at the share MIRROR.
    """
    t = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype)
    here, there = t[:, None], t[None, :]
    out = [x]
    for span in SPANS:
        faded = lambda k, span=span: torch.exp((1 - k) / span) * (k > 0)  # noqa: E731
        image = faded(here + there + 1)
        before = faded(here - there) + image * (MIRROR + END * (there == 0))
        before = before * (1 - math.exp(-1 / span)) ** 0.5
        past, future = x @ before.T, x @ before.flip(0, 1).T
        out += [(past + future) / 2**0.5, (past - future) / 2**0.5]
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
    def fit(self, latents: Tensor, std: Tensor | None = None, chunk: int = 256) -> Tensor:
        """Fit every pattern on complete latents (N, M, D, T); returns the fold of each sample, (N,).

        ``std``: (M, D), the channels' deviations before they were standardised; None: all alike.
        """
        N, M, D, T = latents.shape
        fold = torch.arange(N, device=latents.device) % min(FOLDS, N)
        size = self.K * M * D
        moments = torch.zeros(FOLDS, size, size, dtype=torch.float64, device=latents.device)
        for f in range(FOLDS):
            for part in latents[fold == f].split(chunk):
                w = windows(part.flatten(1, 2)).flatten(0, 1).double()
                moments[f] += w.T @ w
        total = moments.sum(0)
        kept = [total - m for m in moments] + [total]
        prior = torch.ones(M, D) if std is None else std / std.amax(dim=1, keepdim=True).clamp(min=1e-12)
        prior = prior.to(moments).clamp(min=1e-3).flatten()
        weights = torch.zeros(FOLDS + 1, *self.weight.shape, dtype=torch.float64, device=latents.device)
        alive = (total.diagonal()[: M * D] > 0).cpu()  # channels that are always zero say and need nothing
        for code, inputs, missing in self._patterns(alive):
            for target in missing:
                fits = [(self._fit_target(kept, N * T, inputs[b], target, prior), b) for b in BLOCKS]
                (_, best), blocks = min(fits, key=lambda fit: fit[0][0])
                weights[:, code, inputs[blocks].flatten()[:, None], target] = torch.stack(best)
        self.weight.copy_(weights[-1])
        self.folds = weights[:-1].float()
        return fold

    def _patterns(self, alive: Tensor) -> Iterator[tuple[int, Tensor, list[Tensor]]]:
        """Of each incomplete pattern: its code, its columns of each window (K, C), and those of each missing modality.

        ``alive``: bool (M D,), the channels that count; a modality without any is left out.
        """
        column, alive = torch.arange(self.K * self.M * self.D).view(self.K, -1), alive.view(self.M, self.D)
        for code in range(1, 2**self.M - 1):
            here = alive & torch.tensor([bool(code >> m & 1) for m in range(self.M)])[:, None]
            gone = [m for m in range(self.M) if not code >> m & 1 and alive[m].any()]
            if here.any():
                channels = [torch.arange(self.D)[alive[m]] + m * self.D for m in gone]
                yield code, column[:, here.flatten()], channels

    def _fit_target(
        self, kept: list[Tensor], frames: int, inputs: Tensor, target: Tensor, prior: Tensor
    ) -> tuple[float, list[Tensor]]:
        """One missing modality: the held-out error, and fits (K' C, D) that leave out one fold each, the last on all.

        Args:
            kept: second moments (K M D, K M D) of the samples of each fit.
            frames: in all samples.
            inputs: (K', C) columns of what is available, of each of the windows used.
            target: (D,) columns of what is missing.
            prior: (M D,) deviation of each channel, relative to the modality's largest.
        """
        K, counts = len(inputs), (inputs[0] // self.D).unique(return_counts=True)[1].tolist()
        inputs = inputs.flatten()
        size = prior[inputs % (self.M * self.D)]
        white, back = _whitening(kept[-1][target][:, target])
        gram = [k[inputs][:, inputs] for k in kept]
        cross = [k[inputs][:, target] @ white for k in kept]
        ridges = [
            p * frames / (size**power * _shares(K, share, size)) ** 2 for power, share in PRIORS for p in PENALTIES
        ]
        error, best = min((_cut(_ridge(gram, cross, r), gram, cross) for r in ridges), key=lambda found: found[0])
        size = gram[-1].diagonal().clamp(min=1e-12).sqrt()
        first = best
        for n in DIRECTIONS:
            B = [_directions(K, W * size[:, None], counts, n) for W in first]  # each fit's own
            grams = [b.T @ g @ b for b, g in zip(B, gram, strict=True)]
            crosses = [b.T @ c for b, c in zip(B, cross, strict=True)]
            for share, p in product(sorted({share for _, share in PRIORS}), PENALTIES):
                W = _ridge(grams, crosses, p * frames / _shares(K, share, grams[0][0]) ** 2)
                found = _cut([b @ w for b, w in zip(B, W, strict=True)], gram, cross)
                error, best = min((error, best), found, key=lambda found: found[0])
        return error, [w @ back for w in best]


def _shares(K: int, share: float, like: Tensor) -> Tensor:
    """``share`` for inputs that are differences of before and after, else 1; of ``like``'s shape, K times channels."""
    out = torch.ones_like(like).view(K, -1)  # block 0 is x, then come sums and differences in turn
    out[2::2] = share
    return out.flatten()


def _directions(K: int, weight: Tensor, counts: list[int], n: int) -> Tensor:
    """At most n leading channel directions of each modality in ``weight`` (K C, D'), for all windows, (K C, K C').

    ``counts``: channels of each modality, C in all.
    """
    blocks = weight.unflatten(0, (K, -1)).transpose(0, 1).flatten(1).split(counts)  # (C_m, K D') each
    leading = [torch.linalg.svd(block, full_matrices=False)[0][:, :n] for block in blocks]
    return torch.block_diag(*leading * K)


def _ridge(gram: list[Tensor], cross: list[Tensor], penalty: Tensor) -> list[Tensor]:
    """Ridge regression of each fit: weights (inputs, D) from second moments, with a penalty (inputs,) on each input."""
    return [
        torch.cholesky_solve(c, torch.linalg.cholesky(g + penalty.diag())) for g, c in zip(gram, cross, strict=True)
    ]


def _cut(W: list[Tensor], gram: list[Tensor], cross: list[Tensor]) -> tuple[float, list[Tensor]]:
    """Cut the outputs of each fit to the rank with the least held-out error: that error, and the weights."""
    P = [torch.linalg.eigh(w.mT @ g @ w)[1].flip(-1) for w, g in zip(W, gram, strict=True)]  # by explained variance
    error = 0.0
    for w, p, g, c in zip(W[:-1], P, gram, cross, strict=False):  # of the first r directions: a running sum
        w, c = w @ p, (cross[-1] - c) @ p
        error = error + (((gram[-1] - g) @ w * w).sum(0) - 2 * (w * c).sum(0)).cumsum(0)
    ranks = [r for r in RANKS if r < len(error)] + [len(error)]
    r = min(ranks, key=lambda r: float(error[r - 1]))
    return float(error[r - 1]), [w @ p[:, :r] @ p[:, :r].T for w, p in zip(W, P, strict=True)]


def _whitening(covariance: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix that decorrelates outputs before their rank is cut, and its inverse; both (D, D)."""
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=1e-3 * values.max())
    return vectors * values.rsqrt() @ vectors.T, vectors * values.sqrt() @ vectors.T
