"""What every notebook of a run starts with: data, configurations, folders, provenance."""

import json
import platform
import sys
import time
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython import get_ipython
from IPython.display import Image as Picture
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from imder_lib.config import WIDTHS, ModelConfig, TrainConfig, model_preset, train_preset
from imder_lib.data.load import DATA_ROOT, NAMES, load_data
from imder_lib.data.schema import MultimodalData
from imder_lib.data.synthetic import RECIPES
from imder_lib.errors import UserError
from imder_lib.experiment.checkpoint import write_text
from imder_lib.experiment.comparison import train_compared
from imder_lib.experiment.pretrain import like_pretrained, load_pretrained, pretrained_bert, read_pretrained
from imder_lib.experiment.text import bert_features, check_route
from imder_lib.experiment.training import FitResult
from imder_lib.model.bert import HUB_NAME, build_bert, local_bert
from imder_lib.model.imder import IMDer
from imder_lib.profiles import profile
from imder_lib.threads import WAITING

OPTIONS = "options.json"  # of a run, in its folder: the notebooks of the run follow it
BERT_FOLDER = DATA_ROOT.parent / "pt" / HUB_NAME
BERT_CACHE = DATA_ROOT / "bert"
FILE_DPI, SHOWN_DPI = 130, 85  # of a figure's file, and of its size on a notebook's page


def parse_seeds(text: str) -> list[int]:
    """Seeds from "1,2,3"."""
    try:
        seeds = [int(s) for s in str(text).split(",")]
    except ValueError:
        raise UserError(f"seeds must be whole numbers joined by commas, got {text!r}") from None
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(f"seeds must be distinct and not negative, got {text!r}")
    return seeds


def default_device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")


@dataclass(frozen=True)
class Options:
    """What a run may set beside data, profile and seeds.

    Attributes:
        text: "features", "bert-frozen" or "bert-finetune" (see imder_lib.experiment.text).
        pretrained: path of a pretrained model; stage 1 is skipped.
        epochs: at most, for every stage; 0: as the profile says.
        steps: network calls of the sampler, in training and evaluation; 0: as the profile says.
        download_bert: the user asks for BERT from the hub.
    """

    text: str = "features"
    pretrained: str = ""
    epochs: int = 0
    steps: int = 0
    download_bert: bool = False

    def __post_init__(self) -> None:
        check_route(self.text)
        if self.epochs < 0 or self.steps < 0 or self.steps == 1:
            raise UserError(f"epochs must be >= 0 and steps 0 or >= 2, got {self.epochs} and {self.steps}")
        if self.pretrained and not Path(self.pretrained).is_file():
            raise UserError(f"no pretrained model at {self.pretrained}: run imder pretrain, or see pt/README.md")


@dataclass
class Run:
    """One reproduction run: its data, its settings and its folder.

    Attributes:
        data: of the profile's size.
        profile: name.
        seeds: one model each.
        folder: everything the run writes lies below it.
        options: what else was set.
    """

    data: MultimodalData
    profile: str
    seeds: list[int]
    folder: Path
    options: Options = field(default_factory=Options)

    @property
    def preset(self) -> str:
        return self.data.name if self.data.name in WIDTHS else "mosi"

    def model_config(self, preset: str = "kit") -> ModelConfig:
        config = model_preset(self.preset, self.data.widths, preset, **profile(self.profile).model)
        if self.options.steps:
            config = replace(config, sampler=replace(config.sampler, steps=self.options.steps))
        if self.data.classes:  # a readout of time averages starts in closed form for numbers only
            config = replace(config, outputs=self.data.classes, readout=False)
        return config

    def train_config(self, seed: int) -> TrainConfig:
        config = train_preset(self.preset, seed=seed, **profile(self.profile).train)
        changes: dict[str, int] = {}
        if self.options.epochs:
            stages = ("fusion_epochs", "diffusion_epochs", "adapt_epochs", "joint_epochs")
            changes |= {k: min(self.options.epochs, getattr(config, k)) for k in stages}
        if self.options.pretrained:
            changes["fusion_epochs"] = 0  # the pretrained model has passed stage 1
        return replace(config, **changes)

    @property
    def draws(self) -> int:
        """Recoveries of each sample in evaluation."""
        return profile(self.profile).draws

    def new_model(self, seed: int, preset: str = "kit") -> IMDer:
        """A model on the default device, untrained but for its pretrained weights."""
        weights, config = (
            read_pretrained(self.options.pretrained) if self.options.pretrained else {},
            self.model_config(preset),
        )
        model = IMDer(like_pretrained(config, weights) if weights else config, seed=seed)
        if weights:
            load_pretrained(model, weights)
        return model.to(default_device())

    def train(self, seed: int, name: str = "kit", until: str | None = None) -> FitResult:
        """One recoverer's model (see :data:`COMPARED`), trained in the run's folder or read from there."""
        weights = read_pretrained(self.options.pretrained) if self.options.pretrained else None
        return train_compared(
            name,
            self.data,
            like_pretrained(self.model_config(), weights) if weights else self.model_config(),
            self.train_config(seed),
            self.model_folder(seed),
            default_device(),
            until,
            weights,
        )

    def model_folder(self, seed: int) -> Path:
        return self.folder / "models" / self.data.name / f"seed{seed}"

    def provenance(self) -> dict[str, object]:
        """Versions, device, settings and the data's hash."""
        packages = ("torch", "numpy", "pandas", "scikit-learn", "papermill")
        return {
            "data": self.data.name,
            "data_sha256": self.data.sha256,
            "profile": self.profile,
            "seeds": self.seeds,
            **asdict(self.options),
            "device": str(default_device()),
            "threads": torch.get_num_threads(),
            "threads_waiting": WAITING,
            "python": platform.python_version(),
            "versions": {p: version(p) for p in (*packages, "imder-kit")},
            "written": time.strftime("%Y-%m-%d %H:%M:%S"),
        }

    def provenance_line(self) -> str:
        p = self.provenance()
        kind = "synthetic data" if self.data.process is not None else f"data {self.data.name}"
        return (f"{kind} {self.data.sha256[:12]}, profile {self.profile}, seeds {self.seeds}, {p['device']}, "
                f"torch {p['versions']['torch']}, python {p['python']}")  # fmt: skip

    def save_table(self, table: pd.DataFrame, name: str) -> None:
        """tables/NAME.csv and .md."""
        folder = self.folder / "tables"
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{name}.csv", table.to_csv(index=False))
        write_text(folder / f"{name}.md", table.to_markdown(index=False, floatfmt=".4g") + "\n")

    def save_figure(self, figure: Figure, name: str, caption: str) -> None:
        """figures/NAME.png with its caption beside it. A notebook shows both; the caption is the picture's alt text."""
        path = self.folder / "figures" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=FILE_DPI, bbox_inches="tight")
        plt.close(figure)
        write_text(path.with_suffix(".json"), json.dumps({"caption": caption}))
        if get_ipython() is not None:
            width = round(Image.open(path).width * SHOWN_DPI / FILE_DPI)
            display(Picture(path.read_bytes(), alt=caption, width=width), Markdown(f"*{caption}*"))


def find_bert(options: Options) -> nn.Module:
    """The BERT of a text route on the default device: the pretrained model's own, else that in pt/bert-base-uncased."""
    state = pretrained_bert(read_pretrained(options.pretrained)) if options.pretrained else {}
    bert = build_bert(state) if state else local_bert(BERT_FOLDER, download=options.download_bert)
    return bert.to(default_device())


def start_run(dataset: str, profile_name: str, seeds: str, out: str | Path, options: Options | None = None) -> Run:
    """Load the data of a run and open its folder.

    Named data sets are used as stored, as the release does; any other file is standardised per feature.

    Args:
        options: what else is set; None: what the folder's options.json says, so that the notebooks of a run follow it.
    """
    options = _written_options(Path(out)) if options is None else options
    budget = profile(profile_name)
    if dataset in RECIPES:
        data = load_data(dataset, sizes=budget.sizes)
    else:
        data = load_data(dataset, standardise=dataset not in NAMES)
        if budget.limit:
            splits = {k: s.first(budget.limit) for k, s in data.splits.items()}
            data = MultimodalData(data.name, splits, data.sha256)
    folder = Path(out).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from None
    if options.text == "bert-frozen" or (options.text != "features" and options.pretrained):
        data = bert_features(data, find_bert(options), BERT_CACHE)
    return Run(data, profile_name, parse_seeds(seeds), folder, options)


def _written_options(folder: Path) -> Options:
    path = folder / OPTIONS
    return Options(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else Options()


def write_options(run: Run) -> None:
    """options.json of a run's folder."""
    write_text(run.folder / OPTIONS, json.dumps(asdict(run.options)))


def command_line() -> str:
    """The command that runs now, for provenance."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def mean_and_std(values: pd.Series) -> str:
    """ "mean ± std" of several seeds, the plain value of one."""
    v = np.asarray(values, dtype=float)
    return f"{v.mean():.3f}" if len(v) == 1 else f"{v.mean():.3f} ± {v.std(ddof=1):.3f}"
