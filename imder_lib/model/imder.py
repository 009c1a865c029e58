"""The IMDer model: encode, recover missing latents, refine, fuse, predict."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imder_lib.config import ModelConfig
from imder_lib.diffusion.noise import Noise, seeded
from imder_lib.diffusion.samplers import Sampler
from imder_lib.errors import UserError
from imder_lib.model.recoverers import make_recoverer
from imder_lib.model.recovery import Latents, checked_mask, passes
from imder_lib.nets.fusion import Fusion
from imder_lib.nets.lengths import valid_steps
from imder_lib.nets.precision import computing
from imder_lib.nets.refiner import Refiner

KERNELS = {"learned": 3, "components": 1}  # kernel size of the encoders, without padding: T' = T - 2 or T


def check_widths(expected: Mapping[str, int], found: Mapping[str, int]) -> None:
    """Raise a UserError with a table of modality, expected and found width, unless they are equal."""
    if dict(expected) != dict(found):
        rows = [f"{m} {expected.get(m, 'none')} {found.get(m, 'none')}" for m in dict.fromkeys([*expected, *found])]
        raise UserError(
            f"the data do not fit the model. Widths (modality, expected, found): {'; '.join(rows)}. "
            "Use data of these widths, or a model that was trained on such data"
        )


def check_outputs(config: ModelConfig, classes: int | None) -> None:
    """Raise a UserError unless the model has one output for each class, or one for labels that are numbers."""
    if (outputs := config.fusion.outputs) != (classes or 1):
        kind = f"{classes} classes" if classes else "numbers, which need 1"
        raise UserError(f"the model has {outputs} outputs, the labels are {kind}: set the fusion's outputs to fit")


@dataclass
class Output:
    """Result of a forward pass."""

    prediction: Tensor  # (B, outputs), in units of the label, or logits of classes
    latents: Latents  # modality -> (B, D, T), inputs of the fusion: true where available, refined where missing
    recovered: Latents  # modality -> (B, D, T), the same before the refiner
    vectors: dict[str, Tensor]  # modality -> (B, (M-1) D), last time step of the fusion
    # "score.<modality>" and "refine.<modality>", scalars; 0 for a modality that is available in all samples
    losses: dict[str, Tensor] = field(default_factory=dict)


class IMDer(nn.Module):
    """Incomplete multimodality-diffused emotion recognition (Wang, Li & Cui, NeurIPS 2023).

    ``seed`` is that of the initial weights; None: torch's default generator.
    """

    def __init__(self, config: ModelConfig, seed: int | None = None) -> None:
        super().__init__()
        self.config, self.modalities = config, config.modalities
        self.kernel, D = KERNELS[config.encoders], config.dim
        refined = self.modalities if config.rules.refine and config.recoverer == "diffusion" else ()
        with nullcontext() if seed is None else seeded(seed):
            self.encoders = nn.ModuleDict(  # a modality of width D needs no encoder
                {m: nn.Conv1d(w, D, self.kernel, bias=False) for m, w in config.widths.items() if w != D}
            )
            self.recoverer = make_recoverer(config)
            self.refiners = nn.ModuleDict({m: Refiner(D, config.unet.refiner_blocks) for m in refined})
            self.fusion = Fusion(self.modalities, D, config.fusion, config.mask_padding)

    def encode(self, features: Mapping[str, Tensor], lengths: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Encode features, modality -> (B, T, D_m), to latents, modality -> (B, D, T').

        T' = T for encoders "components". T' = T - 2 for "learned" ones, except that T < 3 is zero-padded and kept.

        Args:
            lengths: modality -> (B,), number of valid steps; ignored unless config.mask_padding. Latents of other steps
                are set to exactly zero, which marks them as padding. A latent step is valid if the encoder read no
                padding for it; the first step always is.
        """
        check_widths(self.config.widths, {m: x.shape[-1] for m, x in features.items() if m in self.modalities})
        lengths = lengths if self.config.mask_padding else None
        latents = {}
        for m in self.modalities:
            x = features[m].transpose(1, 2)  # (B, D_m, T)
            T = x.shape[-1]
            x = x if lengths is None else x * valid_steps(lengths[m], T)
            if m in self.encoders:
                with computing("float32", x.device):  # latents are the data of all that follows
                    x = self.encoders[m](F.pad(x, (1, 1)) if self.kernel > T else x)
            if lengths is not None:
                x = x * valid_steps((lengths[m] - (T - x.shape[-1])).clamp(min=1), x.shape[-1])
            latents[m] = x
        if len({x.shape[-1] for x in latents.values()}) > 1:
            steps = {m: x.shape[-1] for m, x in latents.items()}
            raise UserError(f"latents have different numbers of steps {steps}: give all features one common T")
        return latents

    def refined(self, recovered: Mapping[str, Tensor], available: Tensor) -> dict[str, Tensor]:
        """Recovered latents (B, D, T), refined where a modality is missing if the rules have a refiner."""
        out = dict(recovered)
        for m, rows in self.recoverer.missing_rows(available).items():
            if len(rows) and m in self.refiners:
                refined = self.refine(m, recovered[m][rows]).to(recovered[m])
                out[m] = recovered[m].index_copy(0, rows, refined)
        return out

    @property
    def recover(self) -> Callable[..., Latents]:
        """Draws of missing latents, see :meth:`Recoverer.recover`."""
        return self.recoverer.recover

    def predict(self, drawn: Mapping[str, Tensor], available: Tensor, refine: bool = True) -> Tensor:
        """Predictions of K draws, (K, B, outputs). Their mean is the prediction, their spread its uncertainty.

        Args:
            drawn: modality -> (K, B, D, T), from :meth:`recover`, or from another recoverer.
            available: bool (B, M), as in the recovery.
            refine: by the model's refiners, trained for draws of its own recoverer, if it has some.
        """
        like = drawn[self.modalities[0]]
        out = like.new_empty(*like.shape[:2], self.config.fusion.outputs)
        with computing(self.config.precision, available.device):
            for k, rows in passes(*like.shape[:2], available.device):
                x = {m: v[k.start : k.stop, rows].flatten(0, 1) for m, v in drawn.items()}
                x = self.refined(x, available[rows].repeat(len(k), 1)) if refine else x
                out[k.start : k.stop, rows] = self.fusion(x)[0].unflatten(0, (len(k), -1))
        return out

    def refine(self, modality: str, drawn: Tensor) -> Tensor:
        """Refine drawn latents (B, D, T); padding stays exactly zero."""
        out = self.refiners[modality](drawn)
        return out * drawn.ne(0).any(dim=1, keepdim=True) if self.config.mask_padding else out

    def forward(
        self,
        features: Mapping[str, Tensor],
        available: Tensor,
        with_losses: bool = False,
        generator: Noise = None,
        sampler: Sampler | None = None,
        lengths: Mapping[str, Tensor] | None = None,
    ) -> Output:
        """Recover missing latents and predict.

        Args:
            features: modality -> float (B, T, D_m). Missing modalities are read only for the losses.
            available: bool (B, M), columns in canonical order; rows may differ.
            with_losses: also compute score and refiner losses, from the true latents of missing modalities.
            generator: noise source. Random numbers are drawn in the release's order: first all score losses, then all
                samplers, each by modality in canonical order.
            sampler: None: the configured one.
            lengths: modality -> (B,), number of valid steps, see :meth:`encode`.
        """
        if missing := [m for m in self.modalities if m not in features]:
            raise UserError(f"features lack {missing}: expected every one of {list(self.modalities)}")
        like = features[self.modalities[0]]
        available = checked_mask(available, len(like), self.modalities, like.device)
        with torch.no_grad():  # encoders are trained in the fusion stage only
            latents = self.encode(features, lengths)
        losses = {}
        with computing(self.config.precision, available.device):
            if with_losses:
                g = generator if isinstance(generator, torch.Generator) else None
                losses = {f"score.{m}": x for m, x in self.recoverer.losses(latents, available, g).items()}
            recovered = {m: x[0] for m, x in self.recover(latents, available, generator, sampler=sampler).items()}
            refined = self.refined(recovered, available)
            if with_losses:
                for m, rows in self.recoverer.missing_rows(available).items():
                    error = F.mse_loss(refined[m][rows], latents[m][rows]) if len(rows) else latents[m].new_zeros(())
                    losses[f"refine.{m}"] = error
            prediction, vectors = self.fusion(refined)
        return Output(prediction, refined, recovered, vectors, losses)
