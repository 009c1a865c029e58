"""IMDer: encode -> recover -> refine -> fuse -> predict."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imder_lib.config import ModelConfig
from imder_lib.diffusion.losses import dsm_loss
from imder_lib.diffusion.noise import Noise, SampleNoise
from imder_lib.diffusion.samplers import em
from imder_lib.diffusion.sde import VESDE, per_sample
from imder_lib.errors import UserError
from imder_lib.nets.fusion import Fusion
from imder_lib.nets.lengths import lengths_of, valid_steps
from imder_lib.nets.refiner import Refiner
from imder_lib.nets.score_net import ScoreNet

KERNEL = 3  # of the encoders, no padding: 50 steps become 48


@dataclass
class Output:
    """What a forward pass gives.

    Attributes:
        prediction: (B, 1), in units of the label.
        latents: modality -> (B, D, T), what fusion saw (refined samples where a modality was missing).
        recovered: modality -> (B, D, T), the sampler's own output where missing, the true latents elsewhere.
        vectors: modality -> (B, (M-1) D), fusion's last time step.
        losses: "score.<modality>" and "refine.<modality>", scalars; 0 for a modality that no sample misses.
    """

    prediction: Tensor
    latents: dict[str, Tensor]
    recovered: dict[str, Tensor]
    vectors: dict[str, Tensor]
    losses: dict[str, Tensor] = field(default_factory=dict)


def condition_key(modalities: tuple[str, ...]) -> str:
    """Name of the 1x1 convolution that joins these modalities to one condition."""
    return "+".join(modalities)


class IMDer(nn.Module):
    """Incomplete multimodality-diffused emotion recognition (Wang, Li & Cui, NeurIPS 2023).

    Args:
        config: sizes and rules.
        seed: of the initial weights; torch's default generator if None.
    """

    def __init__(self, config: ModelConfig, seed: int | None = None) -> None:
        super().__init__()
        if seed is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self._build(config)
        else:
            self._build(config)

    def _build(self, config: ModelConfig) -> None:
        self.config, self.modalities = config, config.modalities
        self.sde = VESDE(config.sigma)
        D = config.dim
        # A modality that is D wide already has no encoder.
        self.encoders = nn.ModuleDict(
            {m: nn.Conv1d(w, D, KERNEL, bias=False) for m, w in config.widths.items() if w != D}
        )
        self.score_nets = nn.ModuleDict({m: ScoreNet(config.score_channels, config.heads) for m in self.modalities})
        self.refiners = nn.ModuleDict({m: Refiner(D, config.refiner_blocks) for m in self.modalities})
        subsets = [s for n in range(2, len(self.modalities)) for s in combinations(self.condition_order, n)]
        self.conditions = nn.ModuleDict({condition_key(s): nn.Conv1d(D * len(s), D, 1) for s in subsets})
        self.fusion = Fusion(
            self.modalities, D, config.heads, config.layers, config.attention_dropout, config.embed_dropout,
            lengths=config.lengths,
        )  # fmt: skip

    @property
    def condition_order(self) -> tuple[str, ...]:
        """Channel order of a joined condition: the release's (text, vision, audio), other names as they come."""
        rank = {"text": 0, "vision": 1, "audio": 2}
        return tuple(sorted(self.modalities, key=lambda m: rank.get(m, 3)))

    def encode(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Features, modality -> (B, T, D_m), to latents, modality -> (B, D, T').

        T' = T - 2; a sequence shorter than 3 steps is zero-padded on both sides instead and keeps its length.
        The release runs this without gradient in joint training; a caller does so with torch.no_grad().

        Args:
            lengths: modality -> (B,), the steps that count. Under config.lengths the latents of the rest are exactly
                zero, which marks them as padding for everything that follows; otherwise lengths are ignored. A latent
                step counts if it saw no padding; of a sample shorter than 3 steps, the first does.
        """
        lengths = lengths if self.config.lengths else None
        latents = {}
        for m in self.modalities:
            x = features[m].transpose(1, 2)  # (B, D_m, T)
            T = x.shape[-1]
            x = x if lengths is None else x * valid_steps(lengths[m], T)
            if m in self.encoders:
                x = self.encoders[m](F.pad(x, (1, 1)) if T < KERNEL else x)
            if lengths is not None:
                x = x * valid_steps((lengths[m] - (T - x.shape[-1])).clamp(min=1), x.shape[-1])
            latents[m] = x
        if len({x.shape[-1] for x in latents.values()}) > 1:
            steps = {m: x.shape[-1] for m, x in latents.items()}
            raise UserError(f"latents have unequal numbers of steps {steps}: give features of one common T")
        return latents

    def condition(self, latents: Mapping[str, Tensor], available: Tensor) -> Tensor:
        """The condition of each sample: its only available latent, or a 1x1 convolution of all of them.

        Args:
            latents: modality -> (B, D, T).
            available: bool (B, M), rows neither empty nor full.

        Returns:
            (B, D, T)
        """
        out = torch.empty_like(latents[self.modalities[0]])
        patterns, row = available.unique(dim=0, return_inverse=True)
        for i, pattern in enumerate(patterns.tolist()):
            here = dict(zip(self.modalities, pattern, strict=True))
            names = tuple(m for m in self.condition_order if here[m])
            rows = (row == i).nonzero()[:, 0]
            joined = torch.cat([latents[m][rows] for m in names], dim=1)
            joined = self.conditions[condition_key(names)](joined) if len(names) > 1 else joined
            out = out.index_copy(0, rows, joined)
        return out

    def score(
        self, modality: str, x: Tensor, t: Tensor, condition: Tensor | None, valid: Tensor | None = None
    ) -> Tensor:
        """The modality's score at (x (B, D, T), t (B,)): network output divided by std(t); 0 where not valid."""
        if valid is not None:
            x, condition = x * valid, None if condition is None else condition * valid
        score = self.score_nets[modality](x, t, condition) / per_sample(self.sde.std(t), x)
        return score if valid is None else score * valid

    def recover(
        self,
        modality: str,
        condition: Tensor,
        noise: Noise = None,
        steps: int | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Draw a missing modality given the condition (B, D, T), without gradient -> (B, D, T); 0 where not valid."""
        score = partial(self.score, modality, valid=valid)
        drawn = em(score, self.sde, condition, steps or self.config.steps, noise)
        return drawn if valid is None else drawn * valid

    def missing_steps(self, latents: Mapping[str, Tensor], available: Tensor) -> Tensor | None:
        """Where what is missing has steps: (B, 1, T), as long as the longest available modality; None: everywhere.

        The length of something missing is not known; it is never read, in training neither.
        """
        if not self.config.lengths:
            return None
        here = {m: latents[m] * available[:, i, None, None] for i, m in enumerate(self.modalities)}
        longest = torch.stack(list(lengths_of(here).values())).amax(dim=0)
        return valid_steps(longest, latents[self.modalities[0]].shape[-1])

    def missing_rows(self, available: Tensor) -> dict[str, Tensor]:
        """The rows that miss each modality: modality -> (n,) indices."""
        return {m: (~available[:, i]).nonzero()[:, 0] for i, m in enumerate(self.modalities)}

    def score_losses(
        self, latents: Mapping[str, Tensor], available: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Score-matching loss of each modality, true latents as x0, over the samples that miss it; 0 if none does."""
        losses = {m: latents[m].new_zeros(()) for m in self.modalities}
        for m, rows in self.missing_rows(available).items():
            if len(rows):
                here = {k: v[rows] for k, v in latents.items()}
                condition = self.condition(here, available[rows])
                valid = self.missing_steps(here, available[rows])
                score = partial(self.score, m, valid=valid)
                losses[m] = dsm_loss(score, self.sde, here[m], condition, generator, valid)
        return losses

    def recover_missing(
        self,
        latents: Mapping[str, Tensor],
        available: Tensor,
        noise: Noise = None,
        steps: int | None = None,
        refine: bool = True,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Draw what is missing (without gradient) and refine it (with gradient).

        Each modality's sampler runs once, over all samples that miss it.

        Returns:
            recovered and refined: modality -> (B, D, T), the given latents where available.
        """
        recovered, refined = dict(latents), dict(latents)
        for m, rows in self.missing_rows(available).items():
            if len(rows):
                here = {k: v[rows] for k, v in latents.items()}
                valid = self.missing_steps(here, available[rows])
                with torch.no_grad():
                    condition = self.condition(here, available[rows])
                    own = noise.of(rows.tolist(), m) if isinstance(noise, SampleNoise) else noise
                    drawn = self.recover(m, condition, own, steps, valid)
                recovered[m] = latents[m].index_copy(0, rows, drawn)
                refined[m] = latents[m].index_copy(0, rows, self.refine(m, drawn)) if refine else recovered[m]
        return recovered, refined

    def refine(self, modality: str, drawn: Tensor) -> Tensor:
        """The refined sample (B, D, T); padding stays exactly zero."""
        better = self.refiners[modality](drawn)
        return better * drawn.ne(0).any(dim=1, keepdim=True) if self.config.lengths else better

    def forward(
        self,
        features: Mapping[str, Tensor],
        available: Tensor,
        with_losses: bool = False,
        generator: Noise = None,
        steps: int | None = None,
        lengths: Mapping[str, Tensor] | None = None,
    ) -> Output:
        """Recover what is missing and predict.

        Args:
            features: modality -> float (B, T, D_m). Missing ones are read only for the losses.
            available: bool (B, M), columns in canonical order; samples of one batch may miss different modalities.
            with_losses: also compute score and refiner losses (these see the true latents of what is missing).
            generator: None, a torch.Generator, or a SampleNoise; draws are in the release's order: score losses of the
                missing modalities in canonical order, then their samplers in the same order.
            steps: network calls of the sampler; the configuration's if None.
            lengths: modality -> (B,), steps that count, see :meth:`encode`.
        """
        available = torch.as_tensor(available)
        self._check(features, available)
        with torch.no_grad():  # the encoders come frozen out of pretraining
            latents = self.encode(features, lengths)
        losses = {}
        if with_losses:
            g = generator if isinstance(generator, torch.Generator) else None
            losses = {f"score.{m}": x for m, x in self.score_losses(latents, available, g).items()}
        recovered, refined = self.recover_missing(latents, available, generator, steps)
        if with_losses:
            for i, m in enumerate(self.modalities):
                gone = ~available[:, i]
                zero = latents[m].new_zeros(())
                losses[f"refine.{m}"] = F.mse_loss(refined[m][gone], latents[m][gone]) if gone.any() else zero
        prediction, vectors = self.fusion(refined)
        return Output(prediction, refined, recovered, vectors, losses)

    def _check(self, features: Mapping[str, Tensor], available: Tensor) -> None:
        if missing := [m for m in self.modalities if m not in features]:
            raise UserError(f"features lack {missing}: expected every one of {list(self.modalities)}")
        shape = (len(features[self.modalities[0]]), len(self.modalities))
        if available.shape != shape or available.dtype != torch.bool:
            got = f"{available.dtype} {tuple(available.shape)}"
            raise UserError(f"available must be bool {shape} with columns {list(self.modalities)}, got {got}")
        if not available.any(dim=1).all():
            row = int((~available.any(dim=1)).nonzero()[0])
            raise UserError(f"row {row} of available is empty: at least one modality must stay")
