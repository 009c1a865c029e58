"""Configuration: frozen dataclasses, and presets by data set."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from imder_lib.diffusion.samplers import Sampler
from imder_lib.errors import UserError

CHOICES = MappingProxyType(
    {
        "net": ("unet", "joint"),
        "parameterisation": ("score", "edm"),
        "latents": ("raw", "standardised"),
        "train_condition": ("shared", "independent", "clean"),
        "sample_condition": ("fresh", "frozen", "clean"),
    }
)


@dataclass(frozen=True)
class Rules:
    """What the diffusion learns. The defaults are the kit's; :data:`RELEASED` holds the release's.

    Attributes:
        net: "unet": the release's, one for each modality, condition by cross-attention. "joint": one net over all
            modalities at once, the available ones as clean input channels; it serves every pattern.
        parameterisation: "score": the net gives std(t) * score. "edm": preconditioned (Karras et al., 2022, table 1).
        latents: "raw", or "standardised" per channel with training statistics.
        train_condition: noise on the condition in training: the target's ("shared", the release), "independent" or
            none ("clean").
        sample_condition: noise on the condition in sampling: "fresh" at every step (the release), one draw for all
            steps ("frozen") or none ("clean").
        refine: let a refiner, trained on squared error, change each draw.
        condition_dropout: share of training samples that net "joint" sees without a condition; guidance needs them.
    """

    net: str = "joint"
    parameterisation: str = "edm"
    latents: str = "standardised"
    train_condition: str = "clean"
    sample_condition: str = "clean"
    refine: bool = False
    condition_dropout: float = 0.1

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
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
    """Sizes and rules of the model.

    Attributes:
        widths: feature width of each modality, in canonical order.
        dim: latent channels D.
        heads, layers: of the fusion encoders.
        attention_dropout: by source modality, in the cross-modal encoders.
        embed_dropout: in all fusion encoders.
        recoverer: replaces missing modalities: "zero", "mean", "regression" (linear), "network" (the U-Net in
            one deterministic pass), "diffusion", or your own, see model/recoverers.py.
        rules: what the diffusion learns.
        sampler: how the diffusion draws.
        unet_channels: widths of the U-Net's levels; the first is D.
        joint_channels, joint_blocks: of the joint net.
        refiner_blocks: residual channel-attention blocks.
        sigma: base of the VE SDE.
        encoders: "learned": convolutions of three frames, trained with fusion, as in the release. "components":
            principal components of single frames, fixed; a modality no wider than ``dim`` loses nothing.
        mask_padding: attention and averages ignore padding; False: they do not, as in the release.
        readout: a small readout of the latents' time averages beside the fusion's own prediction, fitted before the
            first stage; for labels that are numbers. The release has none.
        outputs: 1 for a label that is a number, else the number of classes.
    """

    widths: Mapping[str, int]
    dim: int = 32
    heads: int = 8
    layers: int = 4
    attention_dropout: Mapping[str, float] = field(default_factory=dict)
    embed_dropout: float = 0.0
    recoverer: str = "diffusion"
    rules: Rules = KIT
    sampler: Sampler = field(default_factory=Sampler)
    unet_channels: tuple[int, ...] = (32, 64, 128, 256)
    joint_channels: int = 128
    joint_blocks: int = 8
    refiner_blocks: int = 20
    sigma: float = 25.0
    encoders: str = "learned"
    mask_padding: bool = False
    readout: bool = False
    outputs: int = 1

    def __post_init__(self) -> None:
        if len(self.widths) < 2:
            raise UserError(f"a model needs at least two modalities, got {list(self.widths)}")
        if bad := [m for m in self.widths if not m or set(m) & set(".+<")]:
            raise UserError(f"modality names may not be empty or hold '.', '+' or '<': {bad}")
        if self.sampler.guidance != 1 and (self.rules.net != "joint" or not self.rules.condition_dropout):
            raise UserError("guidance other than 1 needs net 'joint' and condition_dropout > 0")
        if self.encoders not in ("learned", "components"):
            raise UserError(f"encoders must be 'learned' or 'components', got {self.encoders!r}")
        if self.unet_channels[0] != self.dim:
            raise UserError(f"unet_channels start with {self.unet_channels[0]}, expected dim = {self.dim}")

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.widths)


@dataclass(frozen=True)
class TrainConfig:
    """How to train.

    Attributes:
        recipe: "staged" (complete data, then score nets, then refiners and fusion on a cache of recovered
            latents) or "released" (complete data, then everything jointly with the sampler in the loop).
        seed: of initialisation, masks, noise and batch order.
        batch_size, lr, clip: Adam's batch, learning rate and clip-by-value of the gradient.
        patience: epochs without a better validation L1 before the learning rate halves.
        early_stop: epochs without a better validation L1 before a stage ends.
        fusion_epochs: at most, for encoders and fusion on complete data.
        diffusion_epochs: for the score nets (recipe staged).
        diffusion_steps: training steps of the score nets, at least: small data get up to three times the epochs.
        adapt_epochs: at most, for refiners and fusion on the cache (recipe staged).
        joint_epochs: at most, for joint training (recipe released).
        adapt_lr: learning rate of the adapt stage; small, because fusion is already trained.
        diffusion_batch: batch size of the score nets (recipe staged).
        diffusion_lr, diffusion_decay: of the score nets (recipe staged): peak of the cosine schedule, weight decay.
        weight_decay: of the other stages of recipe staged.
        average: of recipe staged: weights are averaged over about this share of a stage's steps; these are kept.
        cache_patterns: number of incomplete patterns under which each training sample is recovered, twice; 0: all.
        rate: missing rate of the released recipe's protocol, and of supervision "observed".
        supervision: "full": training uses the true features of missing modalities. "observed": a mask drawn once for
            each training sample (protocol random at ``rate``) hides modalities for good; they are never read.
    """

    recipe: str = "staged"
    seed: int = 1111
    batch_size: int = 32
    lr: float = 2e-3
    clip: float = 1.0
    patience: int = 24
    early_stop: int = 20
    fusion_epochs: int = 100
    diffusion_epochs: int = 100
    adapt_epochs: int = 30
    joint_epochs: int = 100
    adapt_lr: float = 5e-4
    diffusion_steps: int = 0
    diffusion_batch: int = 128
    diffusion_lr: float = 4e-3
    diffusion_decay: float = 0.05
    weight_decay: float = 0.01
    average: float = 0.1
    cache_patterns: int = 0
    rate: float = 0.3
    supervision: str = "full"

    def __post_init__(self) -> None:
        if self.recipe not in ("staged", "released"):
            raise UserError(f"recipe must be 'staged' or 'released', got {self.recipe!r}")
        if self.supervision not in ("full", "observed"):
            raise UserError(f"supervision must be 'full' or 'observed', got {self.supervision!r}")
        if self.batch_size < 1 or self.lr <= 0:
            raise UserError(f"batch_size must be >= 1 and lr > 0, got {self.batch_size} and {self.lr}")


WIDTHS = MappingProxyType(
    {
        "mosi": {"text": 768, "audio": 5, "vision": 20},
        "mosei": {"text": 768, "audio": 74, "vision": 35},
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
        name: "mosi" or "mosei".
        widths: replaces the data set's own feature widths.
        preset: "kit" or "released": rules, sampler, encoders, readout and padding.
        changes: any field of :class:`ModelConfig`.
    """
    if name not in WIDTHS:
        raise UserError(f"unknown preset {name!r}: expected one of {sorted(WIDTHS)}")
    sizes = {
        "mosi": {"layers": 4, "attention_dropout": {"audio": 0.2}, "embed_dropout": 0.2},
        "mosei": {"layers": 6, "attention_dropout": {}, "embed_dropout": 0.0},
    }[name]
    if preset not in PRESETS:
        raise UserError(f"unknown preset {preset!r}: expected one of {list(PRESETS)}")
    return ModelConfig(widths=dict(widths or WIDTHS[name]), **(sizes | PRESETS[preset] | changes))


def train_preset(name: str, **changes: object) -> TrainConfig:
    """Hyper-parameters of the release for "mosi" or "mosei"."""
    if name not in WIDTHS:
        raise UserError(f"unknown preset {name!r}: expected one of {sorted(WIDTHS)}")
    released = {
        "mosi": {"batch_size": 32, "clip": 1.0, "patience": 24},
        "mosei": {"batch_size": 128, "clip": 0.6, "patience": 5},
    }[name]
    return replace(TrainConfig(**released), **changes)
