"""The kit's recoverer: one net over all modalities draws all missing ones of a sample at once."""

import torch
from torch import Tensor

from imder_lib.config import ModelConfig
from imder_lib.diffusion.denoiser import Denoiser, EDMDenoiser
from imder_lib.diffusion.losses import edm_error
from imder_lib.diffusion.noise import SampleNoise, uniform
from imder_lib.errors import UserError
from imder_lib.model.recovery import Latents, Standardised
from imder_lib.nets.joint_net import JointNet


class JointDiffusion(Standardised):
    """One net over all modalities draws all missing ones of a sample together, given the available ones."""

    stochastic = posterior = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        M, D = len(config.modalities), config.dim
        self.net = JointNet(M, D, config.joint.channels, config.joint.blocks)

    def denoiser(self, available: Tensor, valid: Tensor | None = None) -> Denoiser:
        """The denoiser of the missing modalities under a mask; its condition is :meth:`JointNet.condition`.

        Samplers move all of x; the net does not read x where a modality is available, and :meth:`fill` discards it.
        """
        # The net reads a mean square of 1, and no noise in constant channels and padding.
        scale = self.standardizer.gain() * self.standardizer.varies * ~available[:, :, None, None]
        scale = scale if valid is None else scale * valid[:, None]
        return EDMDenoiser(lambda x, level, condition: self.net.estimate(scale * x, level, condition, available))

    def guided(self, w: float, like: Tensor, available: Tensor, valid: Tensor | None = None) -> Denoiser:
        """The denoiser under guidance w (Ho & Salimans, 2022), for x of the shape of ``like``."""
        denoise = self.denoiser(available, valid)
        if w == 1:
            return denoise
        if not self.config.rules.condition_dropout:
            raise UserError("guidance other than 1 needs a net trained with condition_dropout > 0")
        free = self.net.condition(torch.zeros_like(like), available)
        return lambda x, sigma, condition: denoise(x, sigma, free).lerp(denoise(x, sigma, condition), w)

    def known(self, x: Tensor, available: Tensor) -> Tensor:
        """The condition from standardised latents (B, M, D, T): in the latents' own proportions; zero where missing."""
        return x * (self.standardizer.gain() * self.standardizer.scale()) * available[:, :, None, None]

    def losses(self, latents, available, generator=None, truth=None) -> dict[str, Tensor]:
        x = self.standardizer(latents)
        valid = self.missing_steps(latents, available)
        known = self.known(x, available)
        if self.training and self.config.rules.condition_dropout:
            known = known * (uniform(x, generator) >= self.config.rules.condition_dropout)[:, None, None, None]
        error = edm_error(self.denoiser(available, valid), x, self.net.condition(known, available), generator)
        counts = ~available if truth is None else ~available & truth
        weight = counts.to(x)[:, :, None, None] * self.standardizer.varies
        weight = (weight if valid is None else weight * valid[:, None]).expand_as(error)
        mean = (error * weight).sum(dim=(0, 2, 3)) / weight.sum(dim=(0, 2, 3)).clamp(min=1)
        return dict(zip(self.modalities, mean, strict=True))

    def forward(self, latents, available, noise=None, sampler=None, callback=None) -> Latents:
        rows, sampler = (~available.all(dim=1)).nonzero()[:, 0], sampler or self.config.sampler
        if not len(rows):
            return dict(latents)
        part, a = {m: v[rows] for m, v in latents.items()}, available[rows]
        x, valid = self.standardizer(part), self.missing_steps(part, a)
        own = noise.spawn(rows.tolist(), "joint") if isinstance(noise, SampleNoise) else noise
        condition = self.net.condition(self.known(x, a), a)
        drawn = sampler.draw(self.guided(sampler.guidance, x, a, valid), x, condition, own, callback)
        drawn = self.fill(part, a, self.standardizer.inverse(drawn))
        return {m: v.index_copy(0, rows, drawn[m]) for m, v in latents.items()}
