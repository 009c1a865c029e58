"""Recoverers: what stands in for a missing modality's latents. One interface, so that rows of a table compare."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from imder_lib.config import ModelConfig
from imder_lib.data.schema import Split
from imder_lib.diffusion.noise import Noise, SampleNoise
from imder_lib.diffusion.samplers import Callback, Sampler
from imder_lib.errors import UserError
from imder_lib.model.regression import LinearMean
from imder_lib.nets.lengths import lengths_of, valid_steps

Latents = dict[str, Tensor]


class Standardizer(nn.Module):
    """Latents as one tensor (B, M, D, T), standardised per channel with training statistics; zero frames stay zero.

    A channel that never varies in training is 0, and goes back to its one value.
    """

    def __init__(self, modalities: Sequence[str], dim: int) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.register_buffer("mean", torch.zeros(len(modalities), dim, 1))
        self.register_buffer("std", torch.ones(len(modalities), dim, 1))
        self.register_buffer("varies", torch.ones(len(modalities), dim, 1))

    def fit(self, latents: Mapping[str, Tensor]) -> None:
        """Mean and standard deviation of every channel over all frames that are not zero."""
        for i, m in enumerate(self.modalities):
            frames = latents[m].transpose(1, 2).flatten(0, 1).double()
            frames = frames[frames.ne(0).any(dim=1)]
            std = frames.std(dim=0, correction=0)
            self.mean[i, :, 0] = frames.mean(dim=0)
            self.varies[i, :, 0] = std > 1e-6
            self.std[i, :, 0] = torch.where(std > 1e-6, std, torch.ones_like(std))

    def forward(self, latents: Mapping[str, Tensor]) -> Tensor:
        x = torch.stack([latents[m] for m in self.modalities], dim=1)  # (B, M, D, T)
        return (x - self.mean) / self.std * self.varies * x.ne(0).any(dim=2, keepdim=True)

    def gain(self) -> Tensor:
        """What brings the mean square over all channels to 1 where only some of them vary."""
        return (self.varies.numel() / self.varies.sum().clamp(min=1)).sqrt()

    def inverse(self, x: Tensor) -> Latents:
        """Standardised (B, M, D, T) to latents."""
        return dict(zip(self.modalities, (x * self.varies * self.std + self.mean).unbind(1), strict=True))


class Recoverer(nn.Module, ABC):
    """The interface. ``stochastic``: draws differ. ``trained``: has a loss to be trained with."""

    stochastic = False
    trained = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config, self.modalities = config, config.modalities

    def prepare(self, latents: Mapping[str, Tensor]) -> None:
        """Fit what has a closed form on complete training latents."""

    def losses(
        self,
        latents: Mapping[str, Tensor],
        available: Tensor,
        generator: torch.Generator | None = None,
        truth: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Training loss of each modality over the samples that miss it, 0 where none does.

        Args:
            latents: modality -> (B, D, T), true.
            available: bool (B, M).
            generator: of the draws.
            truth: bool (B, M), what may be learned from; None: everything that is missing.
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
        """Latents with every missing modality replaced; the true ones of what is missing are never read.

        Args:
            latents: modality -> (B, D, T).
            available: bool (B, M).
            noise: of the draw, if stochastic.
            sampler: how to draw; the configuration's if None.
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
        """Recover K times, without gradient and before any refiner.

        Args:
            noise: source of the draws; a SampleNoise gives every draw a stream of its own.
            draws: K >= 1.
            latents, available, sampler, callback: see :meth:`forward`.

        Returns:
            modality -> (K, B, D, T), the given latents where available.
        """
        if draws < 1:
            raise UserError(f"draws must be at least 1, got {draws}")
        rows = range(len(available))
        sources = [
            noise.spawn(rows, f"draw{k}") if k and isinstance(noise, SampleNoise) else noise for k in range(draws)
        ]
        drawn = [self(latents, available, source, sampler, callback) for source in sources]
        return {m: torch.stack([x[m] for x in drawn]) for m in self.modalities}

    def missing_rows(self, available: Tensor) -> dict[str, Tensor]:
        """The rows that miss each modality: modality -> (n,) indices."""
        return {m: (~available[:, i]).nonzero()[:, 0] for i, m in enumerate(self.modalities)}

    def missing_steps(self, latents: Mapping[str, Tensor], available: Tensor) -> Tensor | None:
        """Where what is missing has steps: (B, 1, T), as long as the longest available modality; None: everywhere.

        The length of something missing is not known; it is never read, in training neither.
        """
        if not self.config.mask_padding:
            return None
        here = {m: latents[m] * available[:, i, None, None] for i, m in enumerate(self.modalities)}
        longest = torch.stack(list(lengths_of(here).values())).amax(dim=0)
        return valid_steps(longest, latents[self.modalities[0]].shape[-1])

    def fill(self, latents: Mapping[str, Tensor], available: Tensor, values: Mapping[str, Tensor]) -> Latents:
        """Latents with ``values[m]`` (broadcast over B) where modality m is missing; padding stays zero."""
        valid = self.missing_steps(latents, available)
        out = {}
        for i, m in enumerate(self.modalities):
            value = values[m] if valid is None else values[m] * valid
            out[m] = torch.where(available[:, i, None, None], latents[m], value)
        return out


class ZeroFill(Recoverer):
    """Zeros. With fusion trained on them, this is modality dropout."""

    def forward(self, latents, available, noise=None, sampler=None, callback=None) -> Latents:
        return self.fill(latents, available, {m: torch.zeros_like(x[:1]) for m, x in latents.items()})


class Standardised(Recoverer):
    """A recoverer that works on standardised latents."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.standardizer = Standardizer(config.modalities, config.dim)

    def prepare(self, latents: Mapping[str, Tensor]) -> None:
        self.standardizer.fit(latents)


class MeanFill(Standardised):
    """The training mean of each channel."""

    def forward(self, latents, available, noise=None, sampler=None, callback=None) -> Latents:
        values = {m: self.standardizer.mean[i].expand_as(latents[m][:1]) for i, m in enumerate(self.modalities)}
        return self.fill(latents, available, values)


class Regression(Standardised):
    """The linear estimate of :class:`LinearMean`."""

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
def encode_split(model: nn.Module, split: Split, batch_size: int = 256) -> Latents:
    """Latents of a whole split on the model's device: modality -> (N, D, T)."""
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(split), batch_size):
        batch = split.batch(range(start, min(start + batch_size, len(split)))).to(device)
        parts.append(model.encode(batch.features, batch.lengths))
    return {m: torch.cat([p[m] for p in parts]) for m in model.modalities}
