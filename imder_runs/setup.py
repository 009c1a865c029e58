"""Setup of a run, shared by all notebooks: data, configurations, folder, provenance."""

import json
import platform
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython import get_ipython
from IPython.display import Image as Picture
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from imder_lib.config import WIDTHS, ModelConfig, TrainConfig, model_preset, train_preset
from imder_lib.data.load import NAMES, load_data
from imder_lib.data.schema import MultimodalData
from imder_lib.errors import UserError, unwritable
from imder_lib.experiment.cases import rates_of
from imder_lib.experiment.training import FitResult
from imder_lib.files import write_text, written_whole
from imder_lib.model.imder import IMDer
from imder_lib.nets.precision import usable
from imder_lib.settings import changed
from imder_lib.startup import WAITING
from imder_runs.comparison import train_compared
from imder_runs.places import HOME
from imder_runs.pretrain import like_pretrained, load_pretrained, pretrained_bert, read_pretrained
from imder_runs.profiles import Profile, find_profile
from imder_runs.tables import save_table
from imder_runs.text import HUB_NAME, bert_features, build_bert, check_route, local_bert

BERT_FOLDER, BERT_CACHE = HOME / "pt" / HUB_NAME, HOME / "data" / "bert"
FILE_DPI, SHOWN_DPI = 130, 85  # resolution of saved figures, and of their size in a notebook
PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "papermill", "imder-kit")  # versions stored in the provenance
STAGES = ("fusion", "diffusion", "adapt", "joint")


def parse_seeds(text: str) -> list[int]:
    """Parse seeds such as "1,2,3"."""
    try:
        seeds = [int(s) for s in str(text).split(",")]
    except ValueError:
        raise UserError(f"seeds must be whole numbers joined by commas, got {text!r}") from None
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(f"seeds must be distinct and not negative, got {text!r}")
    return seeds


def default_device() -> torch.device:
    """A CUDA GPU if there is one, else the CPU; no other accelerator was ever tried."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass
class Run:
    """One run: data, settings and folder. A setting out of range, or no file at ``pretrained``, is a UserError."""

    data: MultimodalData  # with the sizes of the profile
    profile: str
    seeds: list[int]  # one model is trained per seed
    folder: Path  # of all output
    text: str = "features"  # or "bert-frozen" or "bert-finetune", see imder_runs/text.py
    pretrained: str = ""  # path of a pretrained model that replaces the fusion stage; empty: none
    epochs: int = 0  # at most, for every stage; 0: the profile's
    steps: int = 0  # network calls of the sampler, in training and evaluation; 0: the profile's
    # "model", "train" and "sampler" -> changed fields of ModelConfig, TrainConfig and Sampler
    changes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_route(self.text)
        if self.epochs < 0 or self.steps < 0 or self.steps == 1:
            raise UserError(f"epochs must be >= 0 and steps 0 or >= 2, got {self.epochs} and {self.steps}")
        if self.steps and "steps" in self.changes.get("sampler", {}):
            raise UserError("steps and sampler.steps are both given: leave one of them out")
        if self.pretrained and not Path(self.pretrained).is_file():
            raise UserError(f"no pretrained model at {self.pretrained}: run imder pretrain, or see pt/README.md")

    @property
    def budget(self) -> Profile:
        return find_profile(self.profile)

    @property
    def draws(self) -> int:
        """Draws per sample in evaluation."""
        return self.budget.draws

    @property
    def preset(self) -> str:
        return self.data.name if self.data.name in WIDTHS else "mosi"

    def model_config(self, preset: str = "kit") -> ModelConfig:
        config = model_preset(self.preset, self.data.widths, preset, **self.budget.model)
        steps = self.steps or self.budget.steps
        sampler = ({"steps": steps} if steps else {}) | self.changes.get("sampler", {})
        config = changed(config, sampler=sampler, **self.changes.get("model", {}))
        # The readout supports number labels only.
        classes = {"outputs": self.data.classes, "readout": False} if self.data.classes else {}
        return changed(config, fusion=classes)

    def train_config(self, seed: int) -> TrainConfig:
        config = train_preset(self.preset, seed=seed, **self.budget.train)
        config = changed(config, **self.changes.get("train", {}))
        if self.epochs:
            fewer = {k: {"epochs": min(self.epochs, config.stage(k).epochs), "least_steps": 0} for k in STAGES}
            config = changed(config, **fewer)
        return changed(config, fusion={"epochs": 0}) if self.pretrained else config

    def train(self, seed: int, name: str = "kit", until: str | None = None) -> FitResult:
        """Train the model of one recoverer (see :data:`COMPARED`), or read it if it is trained already."""
        if self.text == "bert-finetune" and not self.pretrained:
            raise UserError(
                "text 'bert-finetune' trains BERT in the fusion stage: set pretrained to what imder pretrain wrote"
            )
        weights, model = None, self.model_config()
        if self.pretrained:
            weights = read_pretrained(self.pretrained)
            model = like_pretrained(model, weights)
        folder, train = self.model_folder(seed), self.train_config(seed)
        return train_compared(name, self.data, model, train, folder, default_device(), until, weights)

    def model_folder(self, seed: int) -> Path:
        """Folder of the models of one seed; BERT's features are other data, under the same name and hash."""
        name = self.data.name if self.text == "features" else f"{self.data.name}-{self.text}"
        return self.folder / "models" / name / f"seed{seed}"

    def bert(self) -> nn.Module:
        """BERT on the default device, from the pretrained model if it has one, otherwise from pt/bert-base-uncased."""
        state = pretrained_bert(read_pretrained(self.pretrained)) if self.pretrained else {}
        return (build_bert(state) if state else local_bert(BERT_FOLDER)).to(default_device())

    def with_bert(self) -> "Run":
        """The run with BERT's hidden states as text features, if its route says so and BERT is trained."""
        if self.text == "features" or (self.text == "bert-finetune" and not self.pretrained):
            return self
        return replace(self, data=bert_features(self.data, self.bert(), BERT_CACHE))

    def provenance(self) -> dict[str, object]:
        """Versions, device, settings and the data's hash."""
        return {
            "data": self.data.name,
            "data_sha256": self.data.sha256,
            **{k: getattr(self, k) for k in ("profile", "seeds", "text", "pretrained", "epochs", "steps")},
            "device": str(default_device()),
            "precision": usable(self.model_config().precision, default_device()),
            "threads": torch.get_num_threads(),
            "threads_waiting": WAITING,
            "python": platform.python_version(),
            "versions": {p: version(p) for p in PACKAGES},
            "written": time.strftime("%Y-%m-%d %H:%M:%S"),
        }

    def provenance_line(self) -> str:
        kind = "synthetic data" if self.data.process is not None else f"data {self.data.name}"
        return (f"{kind} {self.data.sha256[:12]}, profile {self.profile}, seeds {self.seeds}, {default_device()}, "
                f"torch {version('torch')}, python {platform.python_version()}")  # fmt: skip

    def save_table(self, table: pd.DataFrame, name: str) -> None:
        """Write tables/NAME.csv and .md."""
        save_table(self.folder, table, name)

    def save_figure(self, figure: Figure, name: str, caption: str) -> None:
        """Write figures/NAME.png and its caption; in a notebook, show both, with the caption as alt text."""
        path = self.folder / "figures" / f"{name}.png"
        with written_whole(path) as part:
            figure.savefig(part, format="png", dpi=FILE_DPI, bbox_inches="tight")
        plt.close(figure)
        write_text(path.with_suffix(".json"), json.dumps({"caption": caption}))
        if get_ipython() is not None:
            width = round(Image.open(path).width * SHOWN_DPI / FILE_DPI)
            display(Picture(path.read_bytes(), alt=caption, width=width), Markdown(f"*{caption}*"))


def start_run(
    dataset: str,
    profile: str,
    seeds: str,
    out: str | Path,
    *,
    create: bool = True,
    download_bert: bool = False,
    **settings: object,
) -> Run:
    """Load the data of a run; ``settings`` are text, pretrained, epochs, steps and changes of :class:`Run`.

    Named data sets are used as stored, as in the release; features of other files are standardised.

    Args:
        dataset: see :func:`imder_lib.load_data`.
        seeds: "1" or "1,2,3".
        create: create the folder ``out``.
        download_bert: download BERT if it is not in pt/.

    Raises:
        UserError: bad data or settings, no BERT although the text route needs it, or ``out`` cannot be written.
    """
    sizes = find_profile(profile).sizes
    data = load_data(dataset, root=HOME / "data", standardise=dataset not in NAMES, sizes=sizes)
    run = Run(data, profile, parse_seeds(seeds), Path(out).resolve(), **settings)
    if download_bert:
        get_bert(run.text)
    if run.pretrained and run.text == "features" and pretrained_bert(read_pretrained(run.pretrained)):
        warnings.warn(f"{run.pretrained} was trained on features of the BERT that it holds, but text 'features' takes "
                      "those of the data file: text 'bert-frozen' takes the BERT's", stacklevel=2)  # fmt: skip
    try:
        if create:
            run.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(run.folder, error) from None
    return run.with_bert()


def get_bert(text: str) -> None:
    """Download BERT, which the text route needs, if it is not in pt/."""
    if text == "features":
        raise UserError("text 'features' needs no BERT: leave the download out, or choose another text route")
    local_bert(BERT_FOLDER, download=True)


def check_start(run: Run, recipes: Sequence[str] = ("staged",), rates: Sequence[float] = ()) -> None:
    """Raise a UserError if a later step would fail: for its rates, recipe, pretrained model, or BERT to train."""
    M, allowed = len(run.data.modalities), rates_of("random", run.data.modalities)
    if bad := [r for r in rates if r not in allowed]:
        raise UserError(f"rate {bad[0]} is not possible for {M} modalities: expected one or more of {list(allowed)}")
    if "released" in recipes and M != 3:
        raise UserError(f"recipe 'released' needs three modalities, the data have {M}: choose recipe staged")
    if "released" in recipes and not all(s.given(run.data.modalities).all() for s in (run.data.train, run.data.valid)):
        raise UserError("recipe 'released' needs samples with all modalities, some lack one: choose recipe staged")
    if run.pretrained:
        weights = read_pretrained(run.pretrained)
        try:
            load_pretrained(IMDer(replace(like_pretrained(run.model_config(), weights), recoverer="zero")), weights)
        except UserError as error:
            raise UserError(
                f"{run.pretrained} does not fit profile {run.profile} and these data: {error}; choose the profile and "
                "data of its pretraining"
            ) from None
    elif run.text == "bert-finetune":
        run.data.train.tokens([0])  # raises if there are none
        run.bert()
