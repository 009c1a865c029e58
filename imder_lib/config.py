"""Configuration: frozen dataclasses, one for each reader, and presets by data set."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import nn

from imder_lib.diffusion.samplers import Sampler
from imder_lib.diffusion.sde import VESDE
from imder_lib.errors import UserError, unknown
from imder_lib.settings import Settings, changed, check_value, whole_number

MORE_EPOCHS = 3  # times as many at most, of a stage on a small data set: each validates and writes a checkpoint


def check_names(names: Iterable[str], where: str) -> None:
    """Raise a UserError for a modality name that cannot be part of a pattern, a parameter name or a file name."""
    for m in names:
        bad = not 0 < len(m) <= 60 or not m.isprintable() or set(m) & set(".+</\\") or m.endswith("_lengths")
        if bad or hasattr(nn.ModuleDict, m) or m == "training":  # the last two are PyTorch's
            rule = "1 to 60 printable characters, without . + < / \\, no ending '_lengths', no name that PyTorch uses"
            raise UserError(f"{where}: a modality cannot have the name {m!r:.80}; expected {rule}: rename it")


@dataclass(frozen=True)
class Rules(Settings):
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
        super().__post_init__()
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
class FusionConfig(Settings):
    """Sizes of the fusion."""

    heads: int = 8
    layers: int = 4
    attention_dropout: Mapping[str, float] = field(default_factory=dict)  # by source, in the cross-modal encoders
    embed_dropout: float = 0.0  # in all encoders
    # A small readout of the latents' time averages beside the fusion's own prediction, fitted before the fusion stage;
    # for labels that are numbers. The release has none.
    readout: bool = False
    outputs: int = 1  # for a label that is a number, else the number of classes


@dataclass(frozen=True)
class UNetConfig(Settings):
    """Sizes of the release's recovery: one U-Net for each modality, and a refiner."""

    channels: tuple[int, ...] = (64, 128, 256)  # widths of the levels below the first, which has D
    heads: int = 8
    sigma: float = 25.0  # base of the VE SDE
    refiner_blocks: int = 20  # with residual channel attention


@dataclass(frozen=True)
class JointConfig(Settings):
    """Sizes of the joint net."""

    channels: int = 128
    blocks: int = 8


@dataclass(frozen=True)
class ModelConfig(Settings):
    """Sizes and rules of the model."""

    widths: Mapping[str, int]  # feature width of each modality, in canonical order
    dim: int = 32  # latent channels D
    # "learned": convolutions of three frames, trained with fusion, as in the release. "components": principal
    # components of single frames, fixed; a modality no wider than ``dim`` loses nothing.
    encoders: Literal["learned", "components"] = "learned"
    mask_padding: bool = False  # the fusion's attention and averages ignore padding; in the release they do not
    fusion: FusionConfig = FusionConfig()
    # Replaces missing modalities: "zero", "mean", "regression" (linear), "network" (the U-Net in one deterministic
    # pass), "diffusion", or your own, see model/recoverers.py.
    recoverer: str = "diffusion"
    rules: Rules = KIT  # what the diffusion learns
    sampler: Sampler = field(default_factory=Sampler)  # how the diffusion draws
    # Of products and convolutions; encoders always have float32. Where a device lacks "tf32" it is "float32".
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    unet: UNetConfig = UNetConfig()  # of rules "unet", and of recoverer "network"
    joint: JointConfig = JointConfig()  # of rules "joint"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.widths) < 2:
            raise UserError(f"a model needs at least two modalities, got {list(self.widths)}")
        check_names(self.widths, "widths")
        for name, value in [("dim", self.dim), ("heads", self.fusion.heads), *self.widths.items()]:
            whole_number(name, check_value(name, value, int))
        if (self.recoverer, self.rules.net, self.rules.parameterisation) == ("diffusion", "unet", "score"):
            self.sampler.check_levels(VESDE(self.unet.sigma))
        if self.sampler.guidance != 1 and (self.rules.net != "joint" or not self.rules.condition_dropout):
            raise UserError("guidance other than 1 needs net 'joint' and condition_dropout > 0")

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.widths)


@dataclass(frozen=True)
class StageConfig(Settings):
    """One stage of training."""

    epochs: int = 100  # at most; 0 leaves the stage out
    lr: float = 2e-3  # of Adam or AdamW, at the peak of its schedule
    weight_decay: float = 0.01
    batch_size: int = 0  # 0: that of :class:`TrainConfig`
    least_steps: int = 0  # training steps: small data get up to MORE_EPOCHS times the epochs

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.epochs, self.batch_size, self.least_steps) < 0 or not self.lr > 0:
            got = f"{self.epochs}, {self.batch_size}, {self.least_steps} and {self.lr}"
            raise UserError(f"epochs, batch_size and least_steps must be >= 0 and lr > 0, got {got}")

    def epochs_of(self, batches: int) -> int:
        """The number of epochs if each has this many batches: more than ``epochs`` if ``least_steps`` asks for it."""
        return min(max(self.epochs, -(-self.least_steps // batches)), MORE_EPOCHS * self.epochs)


@dataclass(frozen=True)
class DiffusionStageConfig(StageConfig):
    """Stage "diffusion": the recoverer. Its learning rate follows a cosine, and it never ends early."""

    lr: float = 4e-3
    weight_decay: float = 0.05
    batch_size: int = 128


@dataclass(frozen=True)
class AdaptStageConfig(StageConfig):
    """Stage "adapt": refiners and fusion on a cache of recovered latents; left out where draws need none."""

    epochs: int = 30
    lr: float = 5e-4  # small, because fusion is already trained
    patterns: int = 0  # incomplete patterns under which each training sample is recovered; 0: all


@dataclass(frozen=True)
class TrainConfig(Settings):
    """How to train: what all stages share, and each stage."""

    # "staged": stages fusion (on complete data), diffusion, and adapt where it is needed. "released": fusion, then
    # joint, which trains everything with the sampler in the loop.
    recipe: Literal["staged", "released"] = "staged"
    seed: int = 1111  # of initialisation, masks, noise and batch order
    batch_size: int = 32  # of training, unless a stage has its own
    clip: float = 1.0  # of the gradient, by value
    patience: int = 24  # epochs without a better validation L1 before the learning rate halves, in recipe released
    early_stop: int = 20  # ... before a stage ends
    average: float = 0.1  # weights are averaged over about this share of a stage's steps; these are kept
    rate: float = 0.3  # missing rate of recipe released, and of supervision "observed"
    # "full": training uses the true features of missing modalities. "observed": a mask drawn once for each training
    # sample (protocol random at ``rate``) hides modalities for good; they are never read.
    supervision: Literal["full", "observed"] = "full"
    fusion: StageConfig = StageConfig()  # the release's has no weight decay
    diffusion: DiffusionStageConfig = DiffusionStageConfig()
    adapt: AdaptStageConfig = AdaptStageConfig()
    joint: StageConfig = StageConfig(weight_decay=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in {"batch_size": 1, "early_stop": 1, "patience": 0}.items():
            whole_number(name, getattr(self, name), least)
        if not (self.clip > 0 and 0 <= self.average < 1):
            raise UserError(f"clip must be > 0 and average lie in [0, 1), got {self.clip} and {self.average}")
        if (self.recipe, self.supervision) == ("released", "observed"):
            raise UserError("recipe 'released' trains on all modalities: choose recipe 'staged' to hide some")

    def stage(self, name: str) -> StageConfig:
        """The settings of a stage, with the batch size that it uses."""
        own = getattr(self, name)
        return replace(own, batch_size=own.batch_size or self.batch_size)


WIDTHS: Mapping[str, Mapping[str, int]] = {
    "mosi": {"text": 768, "audio": 5, "vision": 20},
    "mosei": {"text": 768, "audio": 74, "vision": 35},
}
# Of the release: changes to ModelConfig, changes to TrainConfig.
SIZES: Mapping[str, tuple[Mapping[str, object], Mapping[str, object]]] = {
    "mosi": (
        {"fusion": {"layers": 4, "attention_dropout": {"audio": 0.2}, "embed_dropout": 0.2}},
        {"batch_size": 32, "clip": 1.0, "patience": 24},
    ),
    "mosei": ({"fusion": {"layers": 6}}, {"batch_size": 128, "clip": 0.6, "patience": 5}),
}
PRESETS: Mapping[str, Mapping[str, object]] = {
    "kit": {"mask_padding": True, "fusion": {"readout": True}, "encoders": "components"},
    "released": {"rules": RELEASED, "sampler": RELEASED_SAMPLER},
}


def model_preset(
    name: str, widths: Mapping[str, int] | None = None, preset: str = "kit", **changes: object
) -> ModelConfig:
    """Sizes of the released model for "mosi" or "mosei" (any other data: "mosi" with its own widths).

    ``preset``, "kit" or "released", gives rules, sampler, encoders, readout and padding; ``changes`` as in
    :func:`changed`.
    """
    if name not in SIZES:
        raise unknown("unknown preset", name, SIZES)
    if preset not in PRESETS:
        raise unknown("unknown preset", preset, PRESETS)
    config = changed(ModelConfig(dict(widths or WIDTHS[name])), **SIZES[name][0])
    return changed(changed(config, **PRESETS[preset]), **changes)


def train_preset(name: str, **changes: object) -> TrainConfig:
    """Hyper-parameters of the release for "mosi" or "mosei"; ``changes``: see :func:`changed`."""
    if name not in SIZES:
        raise unknown("unknown preset", name, SIZES)
    return changed(changed(TrainConfig(), **SIZES[name][1]), **changes)
