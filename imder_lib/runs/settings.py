"""What the commands reproduce and sweep share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from typer import Option

from imder_lib.data.load import NAMES
from imder_lib.profiles import PROFILES, find_profile

DATASETS = f"{', '.join(NAMES)} or a path"
Dataset = Annotated[str, Option(help=DATASETS)]
ProfileName = Annotated[str, Option(help=", ".join(PROFILES))]
Text = Annotated[str, Option(help="features, bert-frozen or bert-finetune")]
Epochs = Annotated[int, Option(help="at most, for every stage; 0: the profile's")]
Resume = Annotated[bool, Option(help="go on with a run that was cut off")]
Download = Annotated[bool, Option("--download-bert", help="fetch bert-base-uncased if it is not in pt/")]


@dataclass
class Settings:
    """The options of a run. Paths become absolute, and empty seeds those of the profile."""

    dataset: Dataset = "synthetic"
    profile: ProfileName = "quick"
    seeds: Annotated[str, Option(help="one model each: 1 or 1,2,3; empty: 1, in profile full 1111 to 1119")] = ""
    out: Annotated[str, Option(help="a new folder")] = "results/reproduce"
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
