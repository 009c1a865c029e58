"""What every notebook of a run starts with: data, configurations, folders, provenance."""

import json
import platform
import sys
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from imder_lib.config import WIDTHS, ModelConfig, TrainConfig, model_preset, profile, train_preset
from imder_lib.data.load import load_data
from imder_lib.data.schema import MultimodalData, Split
from imder_lib.errors import UserError
from imder_lib.experiment.checkpoint import write_text
from imder_lib.model.imder import IMDer


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


@dataclass
class Run:
    """One reproduction run: its data, its settings and its folder.

    Attributes:
        data: of the profile's size.
        profile: name.
        seeds: one model each.
        folder: everything the run writes lies below it.
    """

    data: MultimodalData
    profile: str
    seeds: list[int]
    folder: Path

    @property
    def preset(self) -> str:
        return self.data.name if self.data.name in WIDTHS else "mosi"

    def model_config(self) -> ModelConfig:
        return model_preset(self.preset, self.data.widths, **profile(self.profile).model)

    def train_config(self, seed: int) -> TrainConfig:
        return train_preset(self.preset, seed=seed, **profile(self.profile).train)

    def new_model(self, seed: int) -> IMDer:
        """An untrained model on the default device."""
        return IMDer(self.model_config(), seed=seed).to(default_device())

    def model_folder(self, seed: int) -> Path:
        return self.folder / "models" / f"seed{seed}"

    def provenance(self) -> dict[str, object]:
        """Versions, device, settings and the data's hash."""
        packages = ("torch", "numpy", "pandas", "scikit-learn", "papermill")
        return {
            "data": self.data.name,
            "data_sha256": self.data.sha256,
            "profile": self.profile,
            "seeds": self.seeds,
            "device": str(default_device()),
            "threads": torch.get_num_threads(),
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

    def save_figure(self, figure: Figure, name: str, caption: str) -> Figure:
        """figures/NAME.png with its caption beside it; gives the figure back."""
        folder = self.folder / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{name}.png", dpi=130, bbox_inches="tight")
        write_text(folder / f"{name}.json", json.dumps({"caption": caption}))
        return figure


def _first(split: Split, limit: int) -> Split:
    def cut(arrays: dict) -> dict:
        return {m: x[:limit] for m, x in arrays.items()}

    tokens = None if split.text_bert is None else split.text_bert[:limit]
    kept = {"features": cut(split.features), "lengths": cut(split.lengths), "text_bert": tokens}
    kept |= {"labels": split.labels[:limit], "ids": split.ids[:limit], "texts": split.texts[:limit]}
    return replace(split, **kept)


def start_run(dataset: str, profile_name: str, seeds: str, out: str | Path) -> Run:
    """Load the data of a run and open its folder.

    Named data sets are used as stored, as the release does; any other file is standardised per feature.
    """
    budget = profile(profile_name)
    if dataset == "synthetic":
        data = load_data(dataset, sizes=budget.sizes)
    else:
        data = load_data(dataset, standardise=dataset not in WIDTHS)
        if budget.limit:
            splits = {k: _first(s, budget.limit) for k, s in data.splits.items()}
            data = MultimodalData(data.name, splits, data.sha256)
    folder = Path(out).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from None
    return Run(data, profile_name, parse_seeds(seeds), folder)


def command_line() -> str:
    """The command that runs now, for provenance."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def mean_and_std(values: pd.Series) -> str:
    """ "mean ± std" of several seeds, the plain value of one."""
    v = np.asarray(values, dtype=float)
    return f"{v.mean():.3f}" if len(v) == 1 else f"{v.mean():.3f} ± {v.std(ddof=1):.3f}"
