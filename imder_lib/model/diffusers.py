"""Recoverers with the release's U-Nets, one per modality: diffusion under any rules, or one deterministic pass."""

from collections.abc import Mapping
from functools import partial
from itertools import combinations

import torch
from torch import Tensor, nn

from imder_lib.config import ModelConfig
from imder_lib.diffusion.denoiser import Denoiser, EDMDenoiser, ScoreDenoiser, sample_condition
from imder_lib.diffusion.losses import dsm_loss, edm_error
from imder_lib.diffusion.noise import SampleNoise
from imder_lib.diffusion.samplers import Sampler
from imder_lib.diffusion.sde import VESDE, per_sample
from imder_lib.errors import UserError
from imder_lib.model.recovery import Latents, Standardised
from imder_lib.nets.score_net import ScoreNet


def condition_key(modalities: tuple[str, ...]) -> str:
    """Name of the 1x1 convolution that combines these modalities to one condition."""
    return "+".join(modalities)


class UNets(Standardised):
    """One U-Net per modality. Its condition: the only available latent, or a 1x1 convolution of all available ones."""

    trained = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        D = config.dim
        self.sde = VESDE(config.sigma)
        self.score_nets = nn.ModuleDict({m: ScoreNet(config.unet_channels, config.heads) for m in self.modalities})
        subsets = [s for n in range(2, len(self.modalities)) for s in combinations(self.condition_order, n)]
        self.conditions = nn.ModuleDict({condition_key(s): nn.Conv1d(D * len(s), D, 1) for s in subsets})

    @property
    def condition_order(self) -> tuple[str, ...]:
        """Channel order of combined conditions: text, vision, audio as in the release, then other modalities."""
        rank = {"text": 0, "vision": 1, "audio": 2}
        return tuple(sorted(self.modalities, key=lambda m: rank.get(m, 3)))

    def prepare(self, latents: Mapping[str, Tensor]) -> None:
        if self.config.rules.latents == "standardised":  # otherwise the standardizer is the identity
            super().prepare(latents)

    def condition(self, latents: Mapping[str, Tensor], available: Tensor) -> Tensor:
        """The condition (B, D, T); each row of ``available`` (B, M) must have both available and missing modalities."""
        out = torch.empty_like(latents[self.modalities[0]])
        patterns, row = available.unique(dim=0, return_inverse=True)
        for i, pattern in enumerate(patterns.tolist()):
            given = dict(zip(self.modalities, pattern, strict=True))
            names = tuple(m for m in self.condition_order if given[m])
            rows = (row == i).nonzero()[:, 0]
            joined = torch.cat([latents[m][rows] for m in names], dim=1)
            joined = self.conditions[condition_key(names)](joined) if len(names) > 1 else joined
            out = out.index_copy(0, rows, joined)
        return out

    def score(
        self, modality: str, x: Tensor, t: Tensor, condition: Tensor | None, valid: Tensor | None = None
    ) -> Tensor:
        """Score of a modality at x (B, D, T) and t (B,): network output divided by std(t); 0 where not valid."""
        return self._net(modality, x, t, condition, valid) / per_sample(self.sde.std(t), x)

    def _net(
        self, modality: str, x: Tensor, t: Tensor, condition: Tensor | None, valid: Tensor | None = None
    ) -> Tensor:
        if valid is None:
            return self.score_nets[modality](x, t, condition)
        condition = None if condition is None else condition * valid
        return self.score_nets[modality](x * valid, t, condition) * valid

    def denoiser(self, modality: str, valid: Tensor | None = None) -> Denoiser:
        """The denoiser of a modality, under the configured parameterisation."""
        if self.config.rules.parameterisation == "score":
            return ScoreDenoiser(partial(self.score, modality, valid=valid), self.sde)
        return EDMDenoiser(partial(self._net, modality, valid=valid))

    def _scaled(self, latents: Mapping[str, Tensor]) -> Latents:
        """Standardised latents by modality: the inputs of the networks."""
        return dict(zip(self.modalities, self.standardizer(latents).unbind(1), strict=True))

    def losses(self, latents, available, generator=None, truth=None) -> dict[str, Tensor]:
        out = super().losses(latents, available)
        wanted = available if truth is None else available | ~truth  # no loss where the true latents are unknown
        scaled = self._scaled(latents)
        for m, rows in self.missing_rows(wanted).items():
            if len(rows):
                part, valid = self._rows(scaled, latents, available, rows)
                out[m] = self.loss(m, part[m], self.condition(part, available[rows]), valid, generator)
        return out

    def _rows(
        self, scaled: Latents, latents: Mapping[str, Tensor], available: Tensor, rows: Tensor
    ) -> tuple[Latents, Tensor | None]:
        raw = {k: v[rows] for k, v in latents.items()}
        return {k: v[rows] for k, v in scaled.items()}, self.missing_steps(raw, available[rows])

    def loss(
        self, m: str, x0: Tensor, condition: Tensor, valid: Tensor | None, generator: torch.Generator | None
    ) -> Tensor:
        """Training loss of one modality's network for clean latents x0 (B, D, T)."""
        mode = self.config.rules.train_condition
        if self.config.rules.parameterisation == "score":
            return dsm_loss(partial(self.score, m, valid=valid), self.sde, x0, condition, generator, valid, mode)
        error = edm_error(self.denoiser(m, valid), x0, condition, generator, mode)
        return error.mean() if valid is None else (error * valid).sum() / valid.expand_as(error).sum()

    def forward(self, latents, available, noise=None, sampler=None, callback=None) -> Latents:
        scaled = self._scaled(latents)
        values: Latents = {}
        for m, rows in self.missing_rows(available).items():
            if len(rows):
                part, valid = self._rows(scaled, latents, available, rows)
                own = noise.spawn(rows.tolist(), m) if isinstance(noise, SampleNoise) else noise
                drawn = self.draw(m, self.condition(part, available[rows]), valid, own, sampler, callback)
                values[m] = scaled[m].index_copy(0, rows, drawn if valid is None else drawn * valid)
        stacked = torch.stack([values.get(m, scaled[m]) for m in self.modalities], dim=1)
        return self.fill(latents, available, self.standardizer.inverse(stacked))

    def draw(self, m: str, condition: Tensor, valid: Tensor | None, noise, sampler: Sampler | None, callback) -> Tensor:
        """Draw one modality given the condition, both (B, D, T)."""
        sampler = sampler or self.config.sampler
        if sampler.guidance != 1:
            raise UserError("guidance other than 1 needs net 'joint'")
        denoise = sample_condition(self.denoiser(m, valid), self.config.rules.sample_condition, noise)
        return sampler.draw(denoise, condition, condition, noise, callback, self.sde)


class Diffusion(UNets):
    """Diffusion with U-Nets; the released rules reproduce the release (1e-5 per network, 1e-3 for 100 steps)."""

    stochastic = True


class Network(UNets):
    """Deterministic recovery: the same U-Nets, trained on squared error, in one pass from a zero input."""

    def loss(self, m, x0, condition, valid, generator) -> Tensor:
        error = (self.draw(m, condition, valid, None, None, None) - x0).square()
        return error.mean() if valid is None else (error * valid).sum() / valid.expand_as(error).sum()

    def draw(self, m, condition, valid, noise, sampler, callback) -> Tensor:
        return self._net(m, torch.zeros_like(condition), condition.new_ones(len(condition)), condition, valid)
