"""Configuration: frozen dataclasses, rules by name, presets by data set."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from imder_lib.diffusion.samplers import SAMPLERS
from imder_lib.errors import UserError

CHOICES: Mapping[str, Collection[str]] = MappingProxyType(
    {
        "net": ("unet", "joint"),
        "parameterisation": ("score", "edm"),
        "latents": ("raw", "standardised"),
        "train_condition": ("shared", "independent", "clean"),
        "sample_condition": ("fresh", "frozen", "clean"),
        "sampler": SAMPLERS,  # whoever adds a sampler there may name it here
        "schedule": ("released", "karras", "geometric"),
    }
)


@dataclass(frozen=True)
class Rules:
    """How diffusion recovers. The defaults are the kit's; :data:`RELEASED` holds the release's.

    Attributes:
        net: "unet": the release's, one for each modality, condition by cross-attention. "joint": one net over all
            modalities at once, the available ones as clean input channels; it serves every pattern.
        parameterisation: "score": the net gives std(t) * score. "edm": preconditioned (Karras et al., 2022, table 1).
        latents: "raw", or "standardised" per channel with training statistics.
        train_condition: noise on it in training: "shared" with the target (the release), "independent", "clean".
        sample_condition: and in sampling: "fresh" at every step (the release), "frozen" (one draw for all), "clean".
        sampler, schedule: see diffusion/samplers.py and diffusion/schedules.py.
        eta: of samplers "dpmpp_2m_sde" and "dpmpp_3m_sde": fresh noise, 0 (an ODE) to 1; see notebook 07.
        antithetic: of several draws, each second one takes the noise of the one before with the sign turned, so that
            the noise cancels in their mean.
        refine: let a refiner, trained on squared error, change each draw.
        condition_dropout: share of training samples that net "joint" sees without a condition; guidance needs them.
        guidance: how far the condition pulls (Ho & Salimans, 2022): D0 + guidance (D - D0), D0 without a condition. 1:
            the trained denoiser; 0: the condition is not heard; above 1: exaggerated. Not 1: two network calls a step.
    """

    net: str = "joint"
    parameterisation: str = "edm"
    latents: str = "standardised"
    train_condition: str = "clean"
    sample_condition: str = "clean"
    sampler: str = "dpmpp_3m_sde"
    schedule: str = "geometric"
    eta: float = 0.5
    antithetic: bool = True
    refine: bool = False
    condition_dropout: float = 0.1
    guidance: float = 1.0

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UserError(f"{name} must be one of {tuple(allowed)}, got {getattr(self, name)!r}")
        if not 0 <= self.eta <= 1:
            raise UserError(f"eta must lie in [0, 1], got {self.eta}")
        if not 0 <= self.condition_dropout < 1:
            raise UserError(f"condition_dropout must lie in [0, 1), got {self.condition_dropout}")
        if self.guidance < 0 or (self.guidance != 1 and (self.net != "joint" or not self.condition_dropout)):
            raise UserError(
                f"guidance must be >= 0, and other than 1 it needs net 'joint' and condition_dropout > 0; got "
                f"{self.guidance} with net {self.net!r} and condition_dropout {self.condition_dropout}"
            )
        if self.net == "joint" and (self.parameterisation, self.latents) != ("edm", "standardised"):
            raise UserError("net 'joint' needs parameterisation 'edm' and latents 'standardised'")
        if self.net == "joint" and (self.train_condition, self.sample_condition) != ("clean", "clean"):
            raise UserError("net 'joint' takes its condition clean: use net 'unet' to noise it")


KIT = Rules()
RELEASED = Rules(
    "unet", "score", "raw", "shared", "fresh", "em", "released", antithetic=False, refine=True,
    condition_dropout=0.0,
)  # fmt: skip
RULES = MappingProxyType({"kit": KIT, "released": RELEASED})


def rules(name: str, **changes: object) -> Rules:
    """Rules by name, "kit" or "released", with single switches changed."""
    if name not in RULES:
        raise UserError(f"unknown rules {name!r}: expected one of {list(RULES)}")
    return replace(RULES[name], **changes)


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and rules of the model.

    Attributes:
        widths: feature width of each modality, in canonical order.
        dim: latent channels D.
        heads, layers: of the fusion encoders.
        attention_dropout: by source modality, in the cross-modal encoders.
        embed_dropout: in all fusion encoders.
        recoverer: what stands in for a missing modality: "zero", "mean", "regression" (linear), "network" (the U-Net in
            one deterministic pass), "diffusion", or your own, see model/recoverers.py.
        rules: of the diffusion.
        unet_channels: widths of the U-Net's levels; the first is D.
        joint_channels, joint_blocks: of the joint net.
        refiner_blocks: residual channel-attention blocks.
        sigma: base of the VE SDE.
        steps: network calls of the sampler.
        encoders: "learned": convolutions of three frames, trained with fusion, as in the release. "components":
            principal components of single frames, fixed; a modality no wider than ``dim`` loses nothing.
        mask_padding: padding neither attends nor counts; False: it does, as in the release.
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
    unet_channels: tuple[int, ...] = (32, 64, 128, 256)
    joint_channels: int = 128
    joint_blocks: int = 8
    refiner_blocks: int = 20
    sigma: float = 25.0
    steps: int = 20
    encoders: str = "learned"
    mask_padding: bool = False
    readout: bool = False
    outputs: int = 1

    def __post_init__(self) -> None:
        if len(self.widths) < 2:
            raise UserError(f"a model needs at least two modalities, got {list(self.widths)}")
        if bad := [m for m in self.widths if not m or set(m) & set(".+<")]:
            raise UserError(f"modality names may not be empty or hold '.', '+' or '<': {bad}")
        if self.steps < 1:
            raise UserError(f"steps must be at least 1, got {self.steps}")
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
        adapt_epochs: at most, for refiners and fusion on the cache (recipe staged).
        joint_epochs: at most, for joint training (recipe released).
        adapt_lr: learning rate of the adapt stage; small, because fusion is already trained.
        diffusion_batch: batch size of the score nets (recipe staged).
        diffusion_lr, diffusion_decay: of the score nets (recipe staged): peak of the cosine schedule, weight decay.
        weight_decay: of the other stages of recipe staged.
        average: of recipe staged: weights are averaged over about this share of a stage's steps; these are kept.
        cache_patterns: incomplete patterns that each training sample is recovered under, twice (0: every one).
        cache_steps: network calls of the sampler when the cache is filled; 0: the model's own.
        rate: missing rate of the released recipe's protocol, and of supervision "observed".
        supervision: "full": training sees the true features of what it calls missing. "observed": each training sample
            keeps only what a mask drawn once, protocol random at ``rate``, leaves; the rest is never read.
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
    diffusion_batch: int = 64
    diffusion_lr: float = 2e-3
    diffusion_decay: float = 0.05
    weight_decay: float = 0.01
    average: float = 0.1
    cache_patterns: int = 0
    cache_steps: int = 0
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


def model_preset(
    name: str, widths: Mapping[str, int] | None = None, preset: str = "kit", **changes: object
) -> ModelConfig:
    """Sizes of the released model for "mosi" or "mosei" (any other data: "mosi" with its own widths).

    Args:
        name: "mosi" or "mosei".
        widths: replaces the data set's own feature widths.
        preset: the rules of recovery: "kit" (20 network calls) or "released" (100).
        changes: any field of :class:`ModelConfig`.
    """
    if name not in WIDTHS:
        raise UserError(f"unknown preset {name!r}: expected one of {sorted(WIDTHS)}")
    released = {
        "mosi": {"layers": 4, "attention_dropout": {"audio": 0.2}, "embed_dropout": 0.2},
        "mosei": {"layers": 6, "attention_dropout": {}, "embed_dropout": 0.0},
    }[name]
    released |= {"rules": rules(preset), "steps": 100 if preset == "released" else 20,
                 "mask_padding": preset != "released", "readout": preset != "released",
                 "encoders": "learned" if preset == "released" else "components"}  # fmt: skip
    return ModelConfig(widths=dict(widths or WIDTHS[name]), **(released | changes))


def train_preset(name: str, **changes: object) -> TrainConfig:
    """Hyper-parameters of the release for "mosi" or "mosei"."""
    if name not in WIDTHS:
        raise UserError(f"unknown preset {name!r}: expected one of {sorted(WIDTHS)}")
    released = {
        "mosi": {"batch_size": 32, "clip": 1.0, "patience": 24},
        "mosei": {"batch_size": 128, "clip": 0.6, "patience": 5},
    }[name]
    return replace(TrainConfig(**released), **changes)
