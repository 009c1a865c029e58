"""Configuration: frozen dataclasses, and presets by data set."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, get_args, get_origin, get_type_hints

from imder_lib.diffusion.samplers import Sampler
from imder_lib.errors import UserError, unknown


def _check_choices(config: object) -> None:
    """Raise a UserError for a field of type Literal with another value."""
    for name, kind in get_type_hints(type(config)).items():
        if get_origin(kind) is Literal and getattr(config, name) not in get_args(kind):
            raise UserError(f"{name} must be one of {get_args(kind)}, got {getattr(config, name)!r}")


@dataclass(frozen=True)
class Rules:
    """What the diffusion learns. The defaults are the kit's; :data:`RELEASED` holds the release's."""

    # "unet": the release's, one for each modality, condition by cross-attention. "joint": one net over all modalities
    # at once, the available ones as clean input channels; it serves every pattern.
    net: Literal["unet", "joint"] = "joint"
    # "score": the net gives std(t) * score. "edm": preconditioned (Karras et al., 2022, table 1).
    parameterisation: Literal["score", "edm"] = "edm"
    latents: Literal["raw", "standardised"] = "standardised"  # per channel with training statistics
    # Noise on the condition in training: the target's ("shared", the release), its own, or none ("clean").
    train_condition: Literal["shared", "independent", "clean"] = "clean"
    # ... and in sampling: "fresh" at every step (the release), one draw for all steps ("frozen") or none ("clean").
    sample_condition: Literal["fresh", "frozen", "clean"] = "clean"
    refine: bool = False  # let a refiner, trained on squared error, change each draw
    condition_dropout: float = 0.1  # share of training samples that net "joint" sees without a condition, for guidance

    def __post_init__(self) -> None:
        _check_choices(self)
        if not 0 <= self.condition_dropout < 1:
            raise UserError(f"condition_dropout must lie in [0, 1), got {self.condition_dropout}")
        if self.net == "joint" and (self.parameterisation, self.latents) != ("edm", "standardised"):
            raise UserError("net 'joint' needs parameterisation 'edm' and latents 'standardised'")
        if self.net == "joint" and (self.train_condition, self.sample_condition) != ("clean", "clean"):
            raise UserError("net 'joint' takes its condition clean: use net 'unet' to noise it")
        if self.net == "unet" and self.condition_dropout:
            raise UserError("condition_dropout has no effect on net 'unet': set it to 0")


KIT = Rules()
RELEASED = Rules("unet", "score", "raw", "shared", "fresh", refine=True, condition_dropout=0.0)
RELEASED_SAMPLER = Sampler("em", 100, "released")


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and rules of the model."""

    widths: Mapping[str, int]  # feature width of each modality, in canonical order
    dim: int = 32  # latent channels D
    heads: int = 8  # of the fusion encoders
    layers: int = 4  # of the fusion encoders
    attention_dropout: Mapping[str, float] = field(default_factory=dict)  # by source, in the cross-modal encoders
    embed_dropout: float = 0.0  # in all fusion encoders
    # Replaces missing modalities: "zero", "mean", "regression" (linear), "network" (the U-Net in one deterministic
    # pass), "diffusion", or your own, see model/recoverers.py.
    recoverer: str = "diffusion"
    rules: Rules = KIT  # what the diffusion learns
    sampler: Sampler = field(default_factory=Sampler)  # how the diffusion draws
    unet_channels: tuple[int, ...] = (32, 64, 128, 256)  # widths of the U-Net's levels; the first is D
    joint_channels: int = 128
    joint_blocks: int = 8
    refiner_blocks: int = 20  # with residual channel attention
    sigma: float = 25.0  # base of the VE SDE
    # "learned": convolutions of three frames, trained with fusion, as in the release. "components": principal
    # components of single frames, fixed; a modality no wider than ``dim`` loses nothing.
    encoders: Literal["learned", "components"] = "learned"
    mask_padding: bool = False  # attention and averages ignore padding; in the release they do not
    # A small readout of the latents' time averages beside the fusion's own prediction, fitted before stage 1;
    # for labels that are numbers. The release has none.
    readout: bool = False
    outputs: int = 1  # for a label that is a number, else the number of classes

    def __post_init__(self) -> None:
        _check_choices(self)
        if len(self.widths) < 2:
            raise UserError(f"a model needs at least two modalities, got {list(self.widths)}")
        if bad := [m for m in self.widths if not m or set(m) & set(".+<")]:
            raise UserError(f"modality names may not be empty or hold '.', '+' or '<': {bad}")
        if self.sampler.guidance != 1 and (self.rules.net != "joint" or not self.rules.condition_dropout):
            raise UserError("guidance other than 1 needs net 'joint' and condition_dropout > 0")
        if self.unet_channels[0] != self.dim:
            raise UserError(f"unet_channels start with {self.unet_channels[0]}, expected dim = {self.dim}")

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.widths)


@dataclass(frozen=True)
class TrainConfig:
    """How to train."""

    # "staged": complete data, then score nets, then refiners and fusion on a cache of recovered latents. "released":
    # complete data, then everything jointly with the sampler in the loop.
    recipe: Literal["staged", "released"] = "staged"
    seed: int = 1111  # of initialisation, masks, noise and batch order
    batch_size: int = 32
    lr: float = 2e-3  # of Adam
    clip: float = 1.0  # of the gradient, by value
    patience: int = 24  # epochs without a better validation L1 before the learning rate halves
    early_stop: int = 20  # ... before a stage ends; that of the score nets never ends early
    fusion_epochs: int = 100  # at most: encoders and fusion on complete data
    diffusion_epochs: int = 100  # recipe staged: score nets
    adapt_epochs: int = 30  # recipe staged, at most: refiners and fusion on the cache
    joint_epochs: int = 100  # recipe released, at most: everything jointly
    adapt_lr: float = 5e-4  # small, because fusion is already trained
    diffusion_steps: int = 0  # training steps of the score nets, at least: small data get up to three times the epochs
    diffusion_batch: int = 128  # recipe staged, as the next five
    diffusion_lr: float = 4e-3  # peak of the cosine schedule
    diffusion_decay: float = 0.05  # weight decay of the score nets
    weight_decay: float = 0.01  # of the other stages
    average: float = 0.1  # weights are averaged over about this share of a stage's steps; these are kept
    cache_patterns: int = 0  # incomplete patterns under which each training sample is recovered, twice; 0: all
    rate: float = 0.3  # missing rate of recipe released, and of supervision "observed"
    # "full": training uses the true features of missing modalities. "observed": a mask drawn once for each training
    # sample (protocol random at ``rate``) hides modalities for good; they are never read.
    supervision: Literal["full", "observed"] = "full"

    def __post_init__(self) -> None:
        _check_choices(self)
        if self.batch_size < 1 or self.lr <= 0:
            raise UserError(f"batch_size must be >= 1 and lr > 0, got {self.batch_size} and {self.lr}")


WIDTHS = MappingProxyType(
    {
        "mosi": {"text": 768, "audio": 5, "vision": 20},
        "mosei": {"text": 768, "audio": 74, "vision": 35},
    }
)
# Of the release: changes to ModelConfig, changes to TrainConfig.
SIZES = MappingProxyType(
    {
        "mosi": (
            {"layers": 4, "attention_dropout": {"audio": 0.2}, "embed_dropout": 0.2},
            {"batch_size": 32, "clip": 1.0, "patience": 24},
        ),
        "mosei": ({"layers": 6}, {"batch_size": 128, "clip": 0.6, "patience": 5}),
    }
)
PRESETS = MappingProxyType(
    {
        "kit": {"mask_padding": True, "readout": True, "encoders": "components"},
        "released": {"rules": RELEASED, "sampler": RELEASED_SAMPLER},
    }
)


def model_preset(
    name: str, widths: Mapping[str, int] | None = None, preset: str = "kit", **changes: object
) -> ModelConfig:
    """Sizes of the released model for "mosi" or "mosei" (any other data: "mosi" with its own widths).

    Args:
        widths: replaces the data set's own feature widths.
        preset: "kit" or "released": rules, sampler, encoders, readout and padding.
        changes: any field of :class:`ModelConfig`.
    """
    if name not in SIZES:
        raise unknown("unknown preset", name, SIZES)
    if preset not in PRESETS:
        raise unknown("unknown preset", preset, PRESETS)
    return ModelConfig(**{"widths": dict(widths or WIDTHS[name])} | SIZES[name][0] | PRESETS[preset] | changes)


def train_preset(name: str, **changes: object) -> TrainConfig:
    """Hyper-parameters of the release for "mosi" or "mosei"; ``changes``: any field of :class:`TrainConfig`."""
    if name not in SIZES:
        raise unknown("unknown preset", name, SIZES)
    return TrainConfig(**SIZES[name][1] | changes)
