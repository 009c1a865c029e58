"""Recoverers: methods that replace the latents of missing modalities, with one interface for all."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import torch
from torch import Tensor, nn

from imder_lib.config import ModelConfig
from imder_lib.data.schema import Split
from imder_lib.diffusion.noise import Noise, SampleNoise
from imder_lib.diffusion.samplers import Callback, Sampler
from imder_lib.errors import UserError
from imder_lib.model.regression import LinearMean
from imder_lib.nets.lengths import lengths_of, valid_steps
from imder_lib.nets.precision import computing
from imder_lib.settings import whole_number

Latents = dict[str, Tensor]
ROWS, GPU_ROWS = 256, 4096  # of a pass; more are no faster: on a CPU they exceed its caches, a GPU is busy with these


def most_rows(device: torch.device) -> int:
    """Rows of a pass."""
    return ROWS if device.type == "cpu" else GPU_ROWS


def passes(draws: int, size: int, device: torch.device, whole: bool = False) -> Iterator[tuple[range, slice]]:
    """The draws and rows of ``size`` samples that are computed together; ``whole``: all rows of one draw."""
    most = max(1, size) if whole else most_rows(device)
    at_once = max(1, most // max(1, size))
    if draws and device.type != "cpu":  # equal passes
        at_once = math.ceil(draws / math.ceil(draws / at_once))
    for k, start in product(range(0, draws, at_once), range(0, max(1, size), most)):
        yield range(k, min(k + at_once, draws)), slice(start, start + most)


def checked_mask(available: Tensor, size: int, modalities: Sequence[str], device: torch.device) -> Tensor:
    """``available`` on the device; a UserError unless it is bool (size, M) with something available in every row."""
    available, shape = torch.as_tensor(available), (size, len(modalities))
    if (got := (available.dtype, tuple(available.shape))) != (torch.bool, shape):
        raise UserError(f"available must be bool {shape} with columns {list(modalities)}, got {got[0]} {got[1]}")
    if not available.any(dim=1).all():
        row = int((~available.any(dim=1)).nonzero()[0])
        raise UserError(f"row {row} of available has no modality: at least one must be available")
    return available.to(device)


class Standardizer(nn.Module):
    """Standardise latents per channel with training statistics, and stack them to (B, M, D, T).

    All-zero frames stay zero. A channel that is constant in training becomes 0; :meth:`inverse` restores its value.
    """

    def __init__(self, modalities: Sequence[str], dim: int) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.register_buffer("mean", torch.zeros(len(modalities), dim, 1))
        self.register_buffer("std", torch.ones(len(modalities), dim, 1))
        self.register_buffer("varies", torch.ones(len(modalities), dim, 1))

    def fit(self, latents: Mapping[str, Tensor]) -> None:
        """Compute mean and standard deviation of each channel over all frames that are not all zero."""
        for i, m in enumerate(self.modalities):
            frames = latents[m].transpose(1, 2).flatten(0, 1).cpu().double()  # not every GPU has float64
            seen = frames.ne(0).any(dim=1)
            frames = frames[seen if seen.any() else slice(1)]  # nothing but zeros is constant
            std = frames.std(dim=0, correction=0)
            self.mean[i, :, 0] = frames.mean(dim=0)
            self.varies[i, :, 0] = std > 1e-6
            self.std[i, :, 0] = torch.where(std > 1e-6, std, torch.ones_like(std))

    def forward(self, latents: Mapping[str, Tensor]) -> Tensor:
        x = torch.stack([latents[m] for m in self.modalities], dim=1)  # (B, M, D, T)
        return (x - self.mean) / self.std * self.varies * x.ne(0).any(dim=2, keepdim=True)

    def gain(self) -> Tensor:
        """Factor that makes the mean square over all channels 1, although constant channels are 0."""
        return (self.varies.numel() / self.varies.sum().clamp(min=1)).sqrt()

    def scale(self) -> Tensor:
        """Standard deviations of the channels, (M, D, 1); their mean square over a modality's varying ones is 1."""
        square = self.std**2 * self.varies
        return (square / square.sum(1, keepdim=True).clamp(min=1e-12) * self.varies.sum(1, keepdim=True)).sqrt()

    def inverse(self, x: Tensor) -> Latents:
        """Standardised (B, M, D, T) back to latents, modality -> (B, D, T)."""
        return dict(zip(self.modalities, (x * self.varies * self.std + self.mean).unbind(1), strict=True))


class Recoverer(nn.Module, ABC):
    """Base class of recoverers. ``stochastic``: draws differ. One that overrides :meth:`losses` is trained.

    ``posterior``: draws follow what is available, so a fusion of complete samples may read them: no stage "adapt".
    """

    stochastic = posterior = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, self.modalities = config, config.modalities

    def prepare(self, latents: Mapping[str, Tensor]) -> None:
        """Fit statistics and closed-form parts to the latents of complete training samples."""

    def losses(
        self,
        latents: Mapping[str, Tensor],
        available: Tensor,
        generator: torch.Generator | None = None,
        truth: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Training loss of each modality over the samples in which it is missing; 0 if there are none.

        Args:
            latents: modality -> (B, D, T), true.
            available: bool (B, M).
            generator: of all random numbers.
            truth: bool (B, M), where the true latents are known; None: everywhere.
        """
        return {m: latents[m].new_zeros(()) for m in self.modalities}

    @abstractmethod
    def forward(
        self,
        latents: Mapping[str, Tensor],
        available: Tensor,
        noise: Noise = None,
        sampler: Sampler | None = None,
        callback: Callback | None = None,
    ) -> Latents:
        """Replace the latents of missing modalities, whose given values are never read.

        Args:
            latents: modality -> (B, D, T).
            available: bool (B, M).
            noise: noise source, if stochastic.
            sampler: None: the configured one.
            callback: see diffusion/samplers.py.
        """

    @torch.no_grad()
    def recover(
        self,
        latents: Mapping[str, Tensor],
        available: Tensor,
        noise: Noise = None,
        draws: int = 1,
        sampler: Sampler | None = None,
        callback: Callback | None = None,
    ) -> Latents:
        """Recover K times, without gradient and without refiner.

        Args:
            noise: noise source; with a SampleNoise each draw has its own stream.
            draws: K >= 1.
            latents, available, sampler, callback: see :meth:`forward`.

        Returns:
            modality -> (K, B, D, T), the given latents where available
        """
        draws, whole = whole_number("draws", draws), callback is not None or not isinstance(noise, SampleNoise)
        like = latents[self.modalities[0]]
        available = checked_mask(available, len(like), self.modalities, like.device)
        seen = {m: latents[m].masked_fill(~available[:, i, None, None], 0) for i, m in enumerate(self.modalities)}
        out = {m: x.new_empty(draws, *x.shape) for m, x in seen.items()}
        with computing(self.config.precision, available.device):
            for k, rows in passes(draws, len(available), available.device, whole):
                many = {m: x[rows].repeat(len(k), 1, 1) for m, x in seen.items()}
                own = noise if whole else noise.draws(k, rows)
                for m, x in self(many, available[rows].repeat(len(k), 1), own, sampler, callback).items():
                    out[m][k.start : k.stop, rows] = x.unflatten(0, (len(k), -1))
        return out

    def missing_rows(self, available: Tensor) -> dict[str, Tensor]:
        """Indices (n,) of the rows in which each modality is missing."""
        return {m: (~available[:, i]).nonzero()[:, 0] for i, m in enumerate(self.modalities)}

    def missing_steps(self, latents: Mapping[str, Tensor], available: Tensor) -> Tensor | None:
        """Valid steps of missing modalities, (B, 1, T); None: all.

        The length of a missing modality is unknown, also in training; the longest available one stands in for it.
        """
        if not self.config.mask_padding:
            return None
        given = {m: latents[m] * available[:, i, None, None] for i, m in enumerate(self.modalities)}
        longest = torch.stack(list(lengths_of(given).values())).amax(dim=0)
        return valid_steps(longest, latents[self.modalities[0]].shape[-1])

    def fill(self, latents: Mapping[str, Tensor], available: Tensor, values: Mapping[str, Tensor]) -> Latents:
        """Latents, with ``values[m]`` (broadcast over B) where modality m is missing; padding stays zero."""
        valid = self.missing_steps(latents, available)
        values = values if valid is None else {m: x * valid for m, x in values.items()}
        given = dict(zip(self.modalities, available[:, :, None, None].unbind(1), strict=True))
        return {m: torch.where(given[m], latents[m], values[m]) for m in self.modalities}


class ZeroFill(Recoverer):
    """Fill with zeros. With fusion trained on them, this is modality dropout."""

    def forward(self, latents, available, noise=None, sampler=None, callback=None) -> Latents:
        return self.fill(latents, available, {m: torch.zeros_like(x[:1]) for m, x in latents.items()})


class Standardised(Recoverer):
    """Base class of recoverers that use standardised latents."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.standardizer = Standardizer(config.modalities, config.dim)

    def prepare(self, latents: Mapping[str, Tensor]) -> None:
        self.standardizer.fit(latents)


class MeanFill(Standardised):
    """Fill with the training mean of each channel."""

    def forward(self, latents, available, noise=None, sampler=None, callback=None) -> Latents:
        values = {m: self.standardizer.mean[i].expand_as(latents[m][:1]) for i, m in enumerate(self.modalities)}
        return self.fill(latents, available, values)


class Regression(Standardised):
    """Fill with the linear estimate of :class:`LinearMean`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.linear = LinearMean(len(config.modalities), config.dim)

    def prepare(self, latents: Mapping[str, Tensor]) -> None:
        super().prepare(latents)
        self.linear.fit(self.standardizer(latents))

    def forward(self, latents, available, noise=None, sampler=None, callback=None) -> Latents:
        estimate = self.linear(self.standardizer(latents), available)
        return self.fill(latents, available, self.standardizer.inverse(estimate))


@torch.no_grad()
def encode_split(model: nn.Module, split: Split) -> Latents:
    """Encode a whole split on the model's device: modality -> (N, D, T)."""
    device = next(model.parameters()).device
    batches = (split.batch(rows.numpy()).to(device) for rows in torch.arange(len(split)).split(ROWS))
    parts = [model.encode(batch.features, batch.lengths) for batch in batches]
    return {m: torch.cat([p[m] for p in parts]) for m in model.modalities}
