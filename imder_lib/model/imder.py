"""IMDer: encode -> recover -> refine -> fuse -> predict."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imder_lib.config import ModelConfig
from imder_lib.diffusion.noise import Noise
from imder_lib.diffusion.samplers import Callback, Sampler
from imder_lib.errors import UserError
from imder_lib.model.recoverers import make_recoverer
from imder_lib.model.recovery import Recoverer
from imder_lib.nets.fusion import Fusion
from imder_lib.nets.lengths import valid_steps
from imder_lib.nets.refiner import Refiner

KERNELS = {"learned": 3, "components": 1}  # of the encoders, no padding: 3 makes 48 steps of 50, 1 keeps them all


@dataclass
class Output:
    """What a forward pass gives.

    Attributes:
        prediction: (B, outputs), in units of the label, or logits of classes.
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
        D = config.dim
        # A modality that is D wide already has no encoder.
        self.kernel = KERNELS[config.encoders]
        self.encoders = nn.ModuleDict(
            {m: nn.Conv1d(w, D, self.kernel, bias=False) for m, w in config.widths.items() if w != D}
        )
        self.recoverer = make_recoverer(config)
        refine = config.rules.refine and config.recoverer == "diffusion"
        self.refiners = nn.ModuleDict({m: Refiner(D, config.refiner_blocks) for m in self.modalities if refine})
        self.fusion = Fusion(
            self.modalities, D, config.heads, config.layers, config.attention_dropout, config.embed_dropout,
            outputs=config.outputs, mask_padding=config.mask_padding, readout=config.readout,
        )  # fmt: skip

    def encode(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Features, modality -> (B, T, D_m), to latents, modality -> (B, D, T').

        Encoders "components" keep T. Of "learned" ones T' = T - 2; a sequence shorter than 3 steps is zero-padded on
        both sides instead and keeps its length.
        The release runs this without gradient in joint training; a caller does so with torch.no_grad().

        Args:
            lengths: modality -> (B,), the steps that count. Under config.mask_padding the latents of the rest are
                exactly zero, which marks them as padding for everything that follows; otherwise lengths are ignored.
                A latent step counts if it saw no padding; of a sample shorter than 3 steps, the first does.
        """
        lengths = lengths if self.config.mask_padding else None
        latents = {}
        for m in self.modalities:
            x = features[m].transpose(1, 2)  # (B, D_m, T)
            T = x.shape[-1]
            x = x if lengths is None else x * valid_steps(lengths[m], T)
            if m in self.encoders:
                x = self.encoders[m](F.pad(x, (1, 1)) if self.kernel > T else x)
            if lengths is not None:
                x = x * valid_steps((lengths[m] - (T - x.shape[-1])).clamp(min=1), x.shape[-1])
            latents[m] = x
        if len({x.shape[-1] for x in latents.values()}) > 1:
            steps = {m: x.shape[-1] for m, x in latents.items()}
            raise UserError(f"latents have unequal numbers of steps {steps}: give features of one common T")
        return latents

    def refined(self, recovered: Mapping[str, Tensor], available: Tensor) -> dict[str, Tensor]:
        """Recovered latents (B, D, T) with the refiner's, if the rules have one, where a modality is missing."""
        out = dict(recovered)
        for m, rows in self.recoverer.missing_rows(available).items():
            if len(rows) and m in self.refiners:
                out[m] = recovered[m].index_copy(0, rows, self.refine(m, recovered[m][rows]))
        return out

    def recover(
        self,
        latents: Mapping[str, Tensor],
        available: Tensor,
        noise: Noise = None,
        draws: int = 1,
        sampler: Sampler | None = None,
        callback: Callback | None = None,
    ) -> dict[str, Tensor]:
        """Draw what is missing: modality -> (K, B, D, T), see :meth:`Recoverer.recover`."""
        return self.recoverer.recover(latents, available, noise, draws, sampler, callback)

    def predict(
        self,
        latents: Mapping[str, Tensor],
        available: Tensor,
        noise: Noise = None,
        draws: int = 1,
        sampler: Sampler | None = None,
        recoverer: Recoverer | None = None,
    ) -> Tensor:
        """Predictions of K draws, (K, B, outputs): their mean is the prediction, their spread its uncertainty.

        Args:
            recoverer: in place of the model's own.
            latents, available, noise, draws, sampler: see :meth:`Recoverer.recover`.
        """
        recovered = (recoverer or self.recoverer).recover(latents, available, noise, draws, sampler)
        each = ({m: x[k] for m, x in recovered.items()} for k in range(draws))
        return torch.stack([self.fusion(self.refined(x, available))[0] for x in each])

    def refine(self, modality: str, drawn: Tensor) -> Tensor:
        """The refined sample (B, D, T); padding stays exactly zero."""
        better = self.refiners[modality](drawn)
        return better * drawn.ne(0).any(dim=1, keepdim=True) if self.config.mask_padding else better

    def forward(
        self,
        features: Mapping[str, Tensor],
        available: Tensor,
        with_losses: bool = False,
        generator: Noise = None,
        sampler: Sampler | None = None,
        lengths: Mapping[str, Tensor] | None = None,
    ) -> Output:
        """Recover what is missing and predict.

        Args:
            features: modality -> float (B, T, D_m). Missing ones are read only for the losses.
            available: bool (B, M), columns in canonical order; samples of one batch may miss different modalities.
            with_losses: also compute score and refiner losses (these see the true latents of what is missing).
            generator: None, a torch.Generator, or a SampleNoise; draws are in the release's order: score losses of the
                missing modalities in canonical order, then their samplers in the same order.
            sampler: how to draw; the configuration's if None.
            lengths: modality -> (B,), steps that count, see :meth:`encode`.
        """
        available = torch.as_tensor(available)
        self._check(features, available)
        with torch.no_grad():  # the encoders come frozen out of pretraining
            latents = self.encode(features, lengths)
        losses = {}
        if with_losses:
            g = generator if isinstance(generator, torch.Generator) else None
            losses = {f"score.{m}": x for m, x in self.recoverer.losses(latents, available, g).items()}
        recovered = {m: x[0] for m, x in self.recover(latents, available, generator, sampler=sampler).items()}
        refined = self.refined(recovered, available)
        if with_losses:
            for i, m in enumerate(self.modalities):
                missing = ~available[:, i]
                zero = latents[m].new_zeros(())
                error = F.mse_loss(refined[m][missing], latents[m][missing]) if missing.any() else zero
                losses[f"refine.{m}"] = error
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
