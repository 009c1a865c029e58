"""What the commands reproduce, sweep and pretrain are told: each field is an option or argument of the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from imder_lib.data.load import NAMES
from imder_lib.profiles import PROFILES, find_profile

DATASETS = f"{', '.join(NAMES)} or a path"
ProfileName = Annotated[str, Option(help=", ".join(PROFILES))]
Folder = Annotated[str, Option(help="a new folder")]
Text = Annotated[str, Option(help="features, bert-frozen or bert-finetune")]
Epochs = Annotated[int, Option(help="at most, for every stage; 0: the profile's")]
Resume = Annotated[bool, Option(help="go on with a run that was cut off")]
Download = Annotated[bool, Option("--download-bert", help="fetch bert-base-uncased if it is not in pt/")]


@dataclass
class Settings:
    """Of reproduce and sweep. Paths become absolute, and empty seeds those of the profile."""

    dataset: Annotated[str, Option(help=DATASETS)] = "synthetic"
    profile: ProfileName = "quick"
    seeds: Annotated[str, Option(help="one model each: 1 or 1,2,3; empty: 1, in profile full 1111 to 1119")] = ""
    out: Folder = "results/reproduce"
    resume: Resume = False
    recipe: Annotated[str, Option(help="of the grid: staged, released or both, joined by a comma")] = "staged"
    text: Text = "features"
    pretrained: Annotated[str, Option(help="skip stage 1: a pretrained .safetensors, or the authors' .pth")] = ""
    epochs: Epochs = 0
    steps: Annotated[int, Option(help="network calls of the sampler; 0: the profile's")] = 0
    download_bert: Download = False

    def __post_init__(self) -> None:
        self.dataset = self.dataset if self.dataset in NAMES else str(Path(self.dataset).resolve())
        self.pretrained = self.pretrained and str(Path(self.pretrained).resolve())
        self.seeds = self.seeds or find_profile(self.profile).seeds


@dataclass
class ReproduceSettings(Settings):
    timeout: Annotated[float, Option(help="seconds for each notebook")] = 172800.0


@dataclass
class SweepSettings(Settings):
    profile: ProfileName = "full"
    out: Folder = "results/sweep"
    rates: Annotated[str, Option(help="of the random protocol, 0.1,0.5; empty: all eight")] = ""


@dataclass
class PretrainSettings:
    dataset: Annotated[str, Argument(help=DATASETS)]
    path: Annotated[Path | None, Argument(help="the result; pt/pretrained-DATASET.safetensors")] = None
    profile: ProfileName = "full"
    seed: Annotated[int, Option(help="of initial weights and batch order")] = 1111
    text: Text = "features"
    epochs: Epochs = 0
    resume: Resume = False
    download_bert: Download = False
