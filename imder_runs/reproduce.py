"""The commands reproduce and pretrain: their options, which sweep shares, and what they do."""

import json
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from imder_lib.data.load import NAMES
from imder_lib.errors import UserError
from imder_lib.experiment.checkpoint import CHECKPOINT
from imder_lib.experiment.training import RECIPES
from imder_lib.files import write_text
from imder_lib.settings import whole_number
from imder_runs.attempt import CELLS
from imder_runs.cells import PRETRAINED, Cell, copy_folder, pretrain_run
from imder_runs.describe import sentiment_scale
from imder_runs.fake import is_fake
from imder_runs.grid import Grid
from imder_runs.locks import held
from imder_runs.notebook import check_parameters, check_timeout, run_notebook
from imder_runs.parallel_notebooks import notebook_threads, notebooks_at_once, run_jobs
from imder_runs.places import NOTEBOOKS
from imder_runs.profiles import PROFILES, find_profile
from imder_runs.progress import progress_shown, say
from imder_runs.report import write_report
from imder_runs.setup import Run, check_start, default_device, parse_seeds, start_run
from imder_runs.sweep import parse_list, sweep

# Notebooks in the order in which they are started: if two run at once, each trains what the other needs later. 00
# trains the digits of 03 while 03 trains what 05 needs.
ORDER = ("03_recovery", "01_data", "00_start_here", "05_missing_rate_tables", "04_training")
PASSED = ("dataset", "profile", "seeds", "text", "pretrained", "epochs", "steps")  # settings passed to the notebooks
RUNNING = ("only", "dry_run", "workers", "scheduler", "scheduler_file", "memory")  # how a sweep runs, not what
NOT_KEPT = ("out", "resume", "download_bert", "timeout", "at_once", *RUNNING)  # settings that a resumed run may change

DATASETS = f"{', '.join(NAMES)} or a path"
ProfileName = Annotated[str, Option(help=", ".join(PROFILES))]
Folder = Annotated[str, Option(help="a new folder")]
Text = Annotated[str, Option(help="features, bert-frozen or bert-finetune")]
Epochs = Annotated[int, Option(help="at most, for every stage; 0: the profile's")]
Resume = Annotated[bool, Option(help="continue an interrupted run")]
Download = Annotated[bool, Option("--download-bert", help="download bert-base-uncased if it is not in pt/")]


@dataclass
class Settings:
    """Options of reproduce and sweep. Paths become absolute; empty seeds become those of the profile."""

    dataset: Annotated[str, Option(help=DATASETS)] = "synthetic"
    profile: ProfileName = "quick"
    seeds: Annotated[str, Option(help="one model each: 1 or 1,2,3; empty: 1, in profile full 1111 to 1119")] = ""
    out: Folder = "results/reproduce"
    resume: Resume = False
    recipe: Annotated[str, Option(help="of the grid: staged, released or both, joined by a comma")] = "staged"
    text: Text = "features"
    pretrained: Annotated[str, Option(help="in place of the fusion stage: .safetensors, or the authors' .pth")] = ""
    epochs: Epochs = 0
    steps: Annotated[int, Option(help="network calls of the sampler; 0: the profile's")] = 0
    download_bert: Download = False

    def __post_init__(self) -> None:
        path = Path(self.dataset)  # one that does not exist may be a misspelt name
        self.dataset = str(path.resolve()) if self.dataset not in NAMES and path.exists() else self.dataset
        self.pretrained = self.pretrained and str(Path(self.pretrained).resolve())
        self.seeds = self.seeds or find_profile(self.profile).seeds


@dataclass
class ReproduceSettings(Settings):
    timeout: Annotated[float, Option(help="seconds for each notebook")] = 172800.0
    at_once: Annotated[int, Option(help="notebooks at once; 0: two on a CPU with idle cores, else one")] = 0


@dataclass
class PretrainSettings:
    dataset: Annotated[str, Argument(help=DATASETS)]
    path: Annotated[Path | None, Argument(help="the result; pt/pretrained-DATASET.safetensors here")] = None
    profile: ProfileName = "full"
    seed: Annotated[int, Option(help="of initial weights and batch order")] = 1111
    text: Text = "features"
    epochs: Epochs = 0
    resume: Resume = False
    download_bert: Download = False


def reproduce(settings: ReproduceSettings) -> Path:
    """Run notebooks 00, 01, 03, 04 and 05 (profile full: first the whole grid) and write OUT/index.html."""
    started = time.perf_counter()
    check_timeout(settings.timeout)
    whole_number("at_once", settings.at_once, 0)
    grid, recipes = find_profile(settings.profile).grid, parse_list(settings.recipe, list(RECIPES), "recipe")
    if not grid and recipes != ["staged"]:
        raise UserError(f"recipe {settings.recipe!r} needs the grid: choose profile full, or imder sweep")
    resumed = Path(settings.out).exists()
    run, seconds = open_run(settings, recipes), {}
    parameters = {k: getattr(settings, k) for k in PASSED} | {"out": str(run.folder)}
    if grid:
        parameters["seeds"] = str(run.seeds[0])  # shown by the notebooks
    for name in ORDER:  # check all parameters before the first notebook runs
        check_parameters(NOTEBOOKS / f"{name}.ipynb", own_parameters(name, parameters))
    large = grid or run.text == "bert-finetune"  # nets that use more than one thread
    if large:
        begun = time.perf_counter()
        run = with_cells(run, sweep(grid_of(settings, recipes), run.folder)) if grid else with_pretrained(run)
        parameters["pretrained"] = run.pretrained
        seconds["sweep"] = round(time.perf_counter() - begun, 1)
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    threads = 0 if large else notebook_threads()
    provenance = run.provenance() | {"command": command, "parameters": asdict(settings), "notes": _notes(run)}
    provenance["threads"] = threads or provenance["threads"]
    shown = ORDER if "staged" in recipes else ("01_data",)  # the others show the model of recipe "staged"
    executed = {name: run.folder / "notebooks" / f"{name}.ipynb" for name in shown}
    mark = {name: path.with_name(f".{name}.done") for name, path in executed.items()}

    def execute(name: str) -> None:
        say(f"{name} ...")
        path = executed[name]
        kw = {"timeout": settings.timeout, "shown": False, "threads": threads}
        run_notebook(NOTEBOOKS / path.name, path, own_parameters(name, parameters), **kw)
        write_text(mark[name], "")

    jobs = {name: partial(execute, name) for name in shown if not mark[name].exists()}
    with progress_shown(list(executed.values()), run.folder / "models"):
        for name, own in run_jobs(jobs, settings.at_once or notebooks_at_once(threads)):
            seconds[name] = round(own, 1)
            say(f"{name} done, {own:.0f} s")
    took = {"seconds": round(time.perf_counter() - started, 1), "seconds_each": seconds, "resumed": resumed}
    metric = "acc" if run.data.classes else "acc2" if sentiment_scale(run.data) else "mae"
    return write_report(run.folder, provenance | took, metric)


def own_parameters(name: str, parameters: Mapping[str, object]) -> dict[str, object]:
    """The parameters of a notebook: 00, always on digits, has no data set, no text route and only their own model."""
    left_out = {"dataset", "text", "pretrained"} if name == "00_start_here" else set()
    left_out -= {"pretrained"} if parameters["dataset"] == "digits" else set()
    return {k: v for k, v in parameters.items() if k not in left_out}


def grid_of(settings: Settings, recipes: list[str], rates: Sequence[float] = ()) -> Grid:
    """The paper's grid with a command's options: all cells share one fusion stage, as in the release."""
    given = {k: getattr(settings, k) for k in ("profile", "text", "pretrained", "epochs", "steps")}
    seeds = parse_seeds(settings.seeds)
    return Grid([settings.dataset], recipe=recipes, seeds=seeds, rates=list(rates), fusion="shared", **given)


def with_cells(run: Run, cells: Sequence[Cell]) -> Run:
    """The run with the finished fusion stage; the model of its first seed is copied to where notebooks look."""
    for cell in cells:
        folder = run.folder / CELLS / cell.name
        if cell.settings["kind"] == "shared":
            run = replace(run, pretrained=str(folder / PRETRAINED))
        target = run.model_folder(run.seeds[0]) / "kit"
        shown = [cell.settings[k] for k in ("kind", "recipe", "seed")] == ["cell", "staged", run.seeds[0]]
        if shown and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            copy_folder(folder / "checkpoint", target)
    return run.with_bert() if run.text == "bert-finetune" else run  # start_run has done this for a frozen BERT


def with_pretrained(run: Run) -> Run:
    """Add a pretrained model to a run without one, by the fusion stage."""
    if run.pretrained:
        return run
    path, seed = run.folder / f"pretrained-{run.data.name}.safetensors", run.seeds[0]
    if not path.with_suffix(".json").exists():
        print(f"fusion stage: {path.name} ...", flush=True)
        pretrain_run(run, seed, run.model_folder(seed).with_name("pretrained"), path)
    return replace(run, pretrained=str(path)).with_bert()


def pretrain_alone(settings: PretrainSettings) -> Path:
    """Train encoders and fusion (with --text bert-finetune also BERT) on complete data: the fusion stage alone."""
    name = settings.dataset if settings.dataset in NAMES else Path(settings.dataset).stem
    path = (settings.path or Path("pt", f"pretrained-{name}.safetensors")).resolve()
    if path.suffix != ".safetensors":  # another suffix would be read as the authors' checkpoint
        raise UserError(f"the result {path.name}: expected a name that ends in .safetensors")
    folder = path.with_suffix(".run")
    begun = folder.exists() and any(folder.iterdir())  # an empty folder was left before a first epoch
    if path.exists() and not (settings.resume and (folder / CHECKPOINT).exists()):
        raise UserError(f"{path} exists already: name another result, or remove it")
    if begun and not settings.resume:
        raise UserError(f"{folder} exists already: name another result, remove it, or continue with --resume")
    given = {k: getattr(settings, k) for k in ("dataset", "profile", "text", "epochs", "download_bert")}
    run = start_run(seeds=str(settings.seed), out=folder, create=False, **given)
    check_start(run)
    with held(folder):
        if not (path.exists() and path.with_suffix(".json").exists()):  # else an earlier call was cut off here
            pretrain_run(run, settings.seed, folder, path)
        shutil.rmtree(folder)  # the checkpoints
    return path


def open_run(settings: Settings, recipes: Sequence[str], rates: Sequence[float] = ()) -> Run:
    """Start a run in a new folder, or continue the run in an existing one with the same settings (run.json)."""
    folder = Path(settings.out).resolve()
    path, kept = folder / "run.json", {k: v for k, v in asdict(settings).items() if k not in NOT_KEPT}
    if folder.exists() and not settings.resume:
        raise UserError(f"{folder} exists already: name another folder, or continue with --resume")
    data = None  # hash of what the run has been trained on
    if folder.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            before = None
        if not isinstance(before, dict):
            raise UserError(f"{folder} is no run of this kit (no readable run.json): name another folder")
        data = before.pop("data_sha256", None)
        if before != kept:
            changed = ", ".join(k for k in {**before, **kept} if before.get(k) != kept.get(k))
            raise UserError(f"{folder} holds a run with other settings ({changed}): name another folder")
    if settings.resume and not folder.exists():
        print(f"{folder} does not exist: a new run starts", flush=True)
    run = start_run(out=folder, create=False, **{k: getattr(settings, k) for k in (*PASSED, "download_bert")})
    if data not in (None, run.data.sha256):
        raise UserError(f"{folder} holds a run on other data, {settings.dataset} has changed: name another folder")
    check_start(run, recipes, rates)
    kept |= {"data_sha256": run.data.sha256}
    write_text(path, json.dumps(kept))  # creates the folder: from here the run can be continued
    return run


def _notes(run: Run) -> list[str]:
    """Notes on the report page about its numbers."""
    sentiment = sentiment_scale(run.data)
    notes = {
        "Synthetic data: drawn from a known process, not measured on people.": run.data.process is not None,
        "Fake data in the shape of the original, written by imder fake: the numbers mean nothing.": is_fake(run.data),
        "Profile smoke only shows that everything runs: its numbers mean nothing.": run.profile == "smoke",
        "Labels lie in [-3, 3] on both sides of 0 and are read as sentiments: all metrics are shown.": sentiment,
        "Labels are no sentiments in [-3, 3] on both sides of 0: read MAE and correlation; ACC2, F1, ACC5 and ACC7 "
        "are meaningless and are left out of the tables and figures.": not sentiment and not run.data.classes,
        "Computed on the CPU.": default_device().type == "cpu",
    }
    return [note for note, applies in notes.items() if applies]
