"""Recoverers with the release's U-Nets, one per modality: diffusion under any rules, or one deterministic pass."""

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import combinations

import torch
from torch import Tensor, nn

from imder_lib.config import ModelConfig
from imder_lib.diffusion.denoiser import Denoiser, EDMDenoiser, ScoreDenoiser, sample_condition
from imder_lib.diffusion.losses import dsm_loss, edm_error
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.diffusion.sde import VESDE, per_sample
from imder_lib.errors import UserError
from imder_lib.model.recovery import Latents, Standardised
from imder_lib.nets.score_net import ScoreNet

ORDER = {"text": 0, "vision": 1, "audio": 2}  # of the release's combined conditions; other modalities follow


class Diffusion(Standardised):
    """One U-Net per modality. Its condition: the only available latent, or a 1x1 convolution of all available ones."""

    stochastic = posterior = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        D = config.dim
        self.sde = VESDE(config.unet.sigma)
        channels, heads = (D, *config.unet.channels), config.unet.heads
        self.score_nets = nn.ModuleDict({m: ScoreNet(channels, heads) for m in self.modalities})
        self.ordered = sorted(self.modalities, key=lambda m: ORDER.get(m, len(ORDER)))
        subsets = [s for n in range(2, len(self.modalities)) for s in combinations(self.ordered, n)]
        self.conditions = nn.ModuleDict({"+".join(s): nn.Conv1d(D * len(s), D, 1) for s in subsets})

    def prepare(self, latents: Mapping[str, Tensor]) -> None:
        if self.config.rules.latents == "standardised":  # otherwise the standardizer is the identity
            super().prepare(latents)

    def condition(self, latents: Mapping[str, Tensor], available: Tensor) -> Tensor:
        """The condition (B, D, T); each row of ``available`` (B, M) must have both available and missing modalities."""
        out = torch.empty_like(latents[self.modalities[0]])
        for pattern in available.unique(dim=0):
            names = [m for m in self.ordered if pattern[self.modalities.index(m)]]
            rows = (available == pattern).all(dim=1).nonzero()[:, 0]
            joined = torch.cat([latents[m][rows] for m in names], dim=1)
            joined = self.conditions["+".join(names)](joined) if len(names) > 1 else joined
            out = out.index_copy(0, rows, joined.to(out))
        return out

    def score(self, m: str, x: Tensor, t: Tensor, condition: Tensor | None, valid: Tensor | None = None) -> Tensor:
        """Score of a modality at x (B, D, T) and t (B,): network output divided by std(t); 0 where not valid."""
        return self._net(m, x, t, condition, valid) / per_sample(self.sde.std(t), x)

    def _net(self, m: str, x: Tensor, t: Tensor, condition: Tensor | None, valid: Tensor | None = None) -> Tensor:
        if valid is None:
            return self.score_nets[m](x, t, condition)
        condition = None if condition is None else condition * valid
        return self.score_nets[m](x * valid, t, condition) * valid

    def denoiser(self, m: str, valid: Tensor | None = None) -> Denoiser:
        """The denoiser of a modality, under the configured parameterisation."""
        if self.config.rules.parameterisation == "score":
            return ScoreDenoiser(partial(self.score, m, valid=valid), self.sde)
        return EDMDenoiser(partial(self._net, m, valid=valid))

    def _parts(self, latents: Latents, available: Tensor, wanted: Tensor) -> Iterator[tuple]:
        """Each modality that ``wanted`` (B, M) lacks: name, rows, standardised latents, condition and valid steps."""
        scaled = dict(zip(self.modalities, self.standardizer(latents).unbind(1), strict=True))
        for m, rows in self.missing_rows(wanted).items():
            if len(rows):
                valid = self.missing_steps({k: v[rows] for k, v in latents.items()}, available[rows])
                part = {k: v[rows] for k, v in scaled.items()}
                yield m, rows, scaled[m], self.condition(part, available[rows]), valid

    def losses(self, latents, available, generator=None, truth=None) -> dict[str, Tensor]:
        out = super().losses(latents, available)
        wanted = available if truth is None else available | ~truth  # no loss where the true latents are unknown
        for m, rows, scaled, condition, valid in self._parts(latents, available, wanted):
            out[m] = self.loss(m, scaled[rows], condition, valid, generator)
        return out

    def loss(
        self, m: str, x0: Tensor, condition: Tensor, valid: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        """Training loss of one modality's network for clean latents x0 (B, D, T)."""
        mode = self.config.rules.train_condition
        if self.config.rules.parameterisation == "score":
            return dsm_loss(partial(self.score, m, valid=valid), self.sde, x0, condition, generator, valid, mode)
        return _mean(edm_error(self.denoiser(m, valid), x0, condition, generator, mode), valid)

    def forward(self, latents, available, noise=None, sampler=None, callback=None) -> Latents:
        values = dict(zip(self.modalities, self.standardizer(latents).unbind(1), strict=True))
        for m, rows, scaled, condition, valid in self._parts(latents, available, available):
            own = noise.spawn(rows.tolist(), m) if isinstance(noise, SampleNoise) else noise
            drawn = self.draw(m, condition, valid, own, sampler, callback)
            values[m] = scaled.index_copy(0, rows, drawn if valid is None else drawn * valid)
        stacked = torch.stack([values[m] for m in self.modalities], dim=1)
        return self.fill(latents, available, self.standardizer.inverse(stacked))

    def draw(self, m: str, condition: Tensor, valid: Tensor | None, noise=None, sampler=None, callback=None) -> Tensor:
        """Draw one modality given the condition, both (B, D, T); see :meth:`forward`."""
        sampler = sampler or self.config.sampler
        if sampler.guidance != 1:
            raise UserError("guidance other than 1 needs net 'joint'")
        if self.config.rules.parameterisation == "score":
            sampler.check_levels(self.sde)
        denoise = sample_condition(self.denoiser(m, valid), self.config.rules.sample_condition, noise)
        return sampler.draw(denoise, condition, condition, noise, callback, self.sde)


def _mean(error: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of (B, D, T) over the valid steps (B, 1, T)."""
    return error.mean() if valid is None else (error * valid).sum() / valid.expand_as(error).sum()


class Network(Diffusion):
    """Deterministic recovery: the same U-Nets, trained on squared error, in one pass from a zero input."""

    stochastic = posterior = False

    def loss(self, m, x0, condition, valid, generator) -> Tensor:
        return _mean((self.draw(m, condition, valid) - x0).square(), valid)

    def draw(self, m, condition, valid, noise=None, sampler=None, callback=None) -> Tensor:
        return self._net(m, torch.zeros_like(condition), condition.new_ones(len(condition)), condition, valid)
