"""The grid of a sweep: a small YAML file, checked before anything runs, and the cells that it stands for."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from imder_lib.config import ModelConfig
from imder_lib.data.load import NAMES
from imder_lib.data.missing import PROTOCOLS, nominal_rate
from imder_lib.diffusion.samplers import SAMPLERS
from imder_lib.errors import UserError, unknown
from imder_lib.experiment.cases import Case, cases, rates_of
from imder_lib.experiment.training import RECIPES
from imder_lib.model.recoverers import RECOVERERS
from imder_lib.settings import Settings
from imder_runs.axes import axes, combinations, varied
from imder_runs.cells import CHANGED, Cell, environment_hash
from imder_runs.comparison import COMPARED, compared_config
from imder_runs.describe import sentiment_scale
from imder_runs.extension import extension_of, load_extension, try_extension
from imder_runs.profiles import find_profile
from imder_runs.setup import Run, check_start, parse_seeds, start_run
from imder_runs.text import weights_hash

LARGEST = 100_000  # characters of a grid
LISTS = ("dataset", "recipe", "recoverers", "seeds", "protocols", "rates", "patterns", "imbalanced")


@dataclass
class Grid(Settings):
    """What to train and test. A list under model, train or sampler is an axis: one cell for each of its values.

    Raises:
        UserError: a value that cannot be used. What depends on the data is checked by :func:`plan`.
    """

    dataset: list[str] = field(default_factory=lambda: ["synthetic"])  # names, or paths
    profile: str = "full"
    recipe: list[str] = field(default_factory=lambda: ["staged"])  # "released": one model for each rate
    recoverers: list[str] = field(default_factory=lambda: ["kit"])  # of recipe staged
    seeds: list[int] = field(default_factory=list)  # empty: the profile's
    protocols: list[str] = field(default_factory=lambda: ["fixed", "random"])
    rates: list[float] = field(default_factory=list)  # of the protocols random, released and instance; empty: all
    patterns: list[str] = field(default_factory=list)  # of the protocol fixed, such as text+audio; empty: all
    imbalanced: list[dict] = field(default_factory=list)  # modality -> rate, of this protocol; empty: see cases()
    draws: int = 0  # recoveries of each sample in the test; 0: the profile's
    fusion: str = ""  # "seed": one fusion stage for each seed; "shared": one for all, as in the release
    text: str = "features"
    pretrained: str = ""
    epochs: int = 0
    steps: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    sampler: dict[str, Any] = field(default_factory=dict)
    extension: str = ""  # a Python file that registers recoverers (in RECOVERERS and COMPARED) or samplers

    def __post_init__(self) -> None:
        for name in LISTS:
            value = getattr(self, name)
            setattr(self, name, value if isinstance(value, list) else [value])
        super().__post_init__()
        if self.extension:
            self.extension = str(Path(self.extension).resolve())
            load_extension(self.extension)
        self.recipe = _listed("recipe", self.recipe, RECIPES)
        hint = "" if self.extension else "; for one of your own add extension: FILE.py"
        bad = next((r for r in self.recoverers if isinstance(r, str) and r not in COMPARED), "")
        end = f"; {bad!r} is in RECOVERERS: a row of COMPARED must use it" if bad in RECOVERERS else hint
        self.recoverers = _listed("recoverer", self.recoverers, COMPARED, end)
        for name in self.recoverers:
            if (used := COMPARED[name].get("recoverer")) not in RECOVERERS:
                raise unknown(f"recoverer {name!r} of COMPARED is to use RECOVERERS, which lacks", used, RECOVERERS)
        self.protocols = _listed("protocol", self.protocols, PROTOCOLS)
        self.seeds = parse_seeds(",".join(map(str, self.seeds)) or find_profile(self.profile).seeds)
        if any(isinstance(r, bool) or not isinstance(r, int | float) for r in self.rates):
            raise UserError(f"rates must be numbers, got {self.rates}")
        self.rates = [float(r) for r in dict.fromkeys(self.rates)]
        if any(not isinstance(r, dict) for r in self.imbalanced) or (
            self.imbalanced and "imbalanced" not in self.protocols
        ):
            raise UserError(f"imbalanced must be tables of rates, with protocol imbalanced, got {self.imbalanced}")
        if self.patterns and "fixed" not in self.protocols:
            raise UserError(f"patterns are those of protocol fixed, got protocols {self.protocols}: leave patterns out")
        if self.rates and self.recipe == ["staged"] and set(self.protocols) <= {"fixed", "imbalanced"}:
            raise UserError(f"rates have no effect on protocols {self.protocols}: leave rates out")
        if self.recoverers != ["kit"] and "staged" not in self.recipe:
            raise UserError(f"recoverers have no effect on recipe {self.recipe}: leave them out, or add recipe staged")
        shared = "released" in self.recipe or self.text == "bert-finetune"
        self.fusion = self.fusion or ("shared" if shared else "seed")
        if self.fusion not in ("seed", "shared") or (self.fusion == "seed" and shared):
            raise UserError(f"fusion must be seed or shared, and shared for recipe released and text bert-finetune, "
                            f"got {self.fusion!r}")  # fmt: skip
        self.dataset = [d if d in NAMES else str(Path(d).resolve()) for d in _listed("dataset", self.dataset)]
        self.pretrained = self.pretrained and str(Path(self.pretrained).resolve())
        if "released" in self.recipe and "rate" in self.train:
            raise UserError("train.rate: recipe released trains a model for each of rates: leave it out")
        if self.pretrained and "fusion" in self.train:
            raise UserError("train.fusion: pretrained takes the place of the fusion stage: leave one of them out")
        for name in axes(self.changes).get("sampler.name", []):
            if name not in SAMPLERS:
                raise unknown("unknown sampler", name, SAMPLERS, end=hint)

    @property
    def changes(self) -> dict[str, dict[str, Any]]:
        """The settings under model, train and sampler."""
        return {name: getattr(self, name) for name in CHANGED}


def _listed(
    what: str, values: Sequence[object], known: Sequence[str] | Mapping[str, object] | None = None, end: str = ""
) -> list:
    if bad := [v for v in values if not isinstance(v, str) or (known and v not in known)]:
        raise unknown(f"unknown {what}", bad[0], known or NAMES, end=end)
    if not values:
        raise UserError(f"{what}: expected at least one")
    return list(dict.fromkeys(values))


def read_grid(path: str | Path) -> Grid:
    """Read a grid from a YAML file; paths in it are relative to the current folder."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise UserError(f"{path} is no grid: it has more than {LARGEST} characters")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader)):
            raise UserError(f"{path}: write values out, aliases (*name) are not read")  # a few lines can hold terabytes
        found = yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"no grid can be read from {path}: {error.strerror}") from None
    except UserError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split()):.200}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected lines such as 'dataset: mosi', see sweeps/smoke.yaml")
    known = [f.name for f in fields(Grid)]
    if bad := [k for k in found if k not in known]:
        raise unknown(f"{path}: unknown key", bad[0], known)
    try:
        return Grid(**found)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def plan(grid: Grid) -> list[Cell]:
    """The cells of a grid, fusion stages first, then by seed, so that complete tables are available early.

    Raises:
        UserError: data, settings, rates or patterns that cannot be used.
    """
    stages: dict[str, Cell] = {}
    trials: dict[tuple[str, str, int], tuple[Callable[[], ModelConfig], Run]] = {}
    out: list[tuple[int, Cell]] = []
    given = {k: getattr(grid, k) for k in ("text", "pretrained", "epochs", "steps")}
    seeds = ",".join(map(str, grid.seeds))
    runs = {d: start_run(d, grid.profile, seeds, ".", create=False, **given) for d in grid.dataset}
    paths: dict[str, str] = {}
    for d, run in runs.items():
        if (other := paths.setdefault(run.data.name, d)) != d:
            raise UserError(f"{other} and {d} are both called {run.data.name!r} in the tables: rename one of them")
    # The features of BERT replace the file's, so its weights belong to the data.
    bert = {"bert_sha256": weights_hash(next(iter(runs.values())).bert())} if grid.text != "features" else {}
    for (dataset, run), changes in product(runs.items(), combinations(grid.changes)):
        run = replace(run, changes=changes)
        if "released" in grid.protocols and not rates_of("released", run.data.modalities):
            raise UserError("protocol 'released' needs three modalities: leave it out")
        run.train_config(0)  # raises for a value out of range, as does check_start for those of the model
        common = run.model_config()
        if "released" in grid.recipe:
            run.model_config("released")  # raises for a sampler that its rules do not allow
        check_start(run, grid.recipe, grid.rates)
        rates = grid.rates or rates_of("random", run.data.modalities)
        head = _head(grid, run, dataset, changes) | bert
        name = re.sub(r"[^\w.]", "_", run.data.name)
        label = f"{name}-{head['varied']}" if head["varied"] else name
        sampler = changes["sampler"].get("name", "")
        models = [("staged", recoverer, None) for recoverer in grid.recoverers if "staged" in grid.recipe]
        models += [("released", "released", rate) for rate in rates if "released" in grid.recipe]
        tested = {rate: cases_of(grid, rates, run.data.modalities, rate) for *_, rate in models}
        for recipe, recoverer, rate in models:
            staged = recipe == "staged"
            if extension_of(grid.extension, recoverer, sampler if recoverer == "kit" or not staged else ""):
                make = partial(compared_config, recoverer, common) if staged else partial(run.model_config, recoverer)
                trials[recoverer, str(common), run.data.steps] = make, run
            end = recoverer if staged else f"joint-rate{rate}"
            for seed in grid.seeds:
                stage = _stage(grid, head, name, seed)
                stages |= {stage.name: stage} if stage else {}
                own = {"kind": "cell", "seed": seed, "recipe": recipe, "recoverer": recoverer, "rate": rate}
                own |= extension_of(grid.extension, recoverer, sampler) | {"cases": tested[rate]}
                out.append((seed, Cell(f"{label}-{end}-seed{seed}", head | own, stage.name if stage else "")))
    for (recoverer, *_), (config, run) in trials.items():  # each once, after all cheaper checks
        try_extension(grid.extension, recoverer, config, len(run.data.train), run.data.steps)
    order = {seed: i for i, seed in enumerate(grid.seeds)}
    return [*stages.values(), *(cell for _, cell in sorted(out, key=lambda pair: order[pair[0]]))]


def _head(grid: Grid, run: Run, dataset: str, changes: dict[str, dict[str, object]]) -> dict[str, Any]:
    """Settings that all cells of one data set and one combination share."""
    file = hashlib.sha256(Path(grid.pretrained).read_bytes()).hexdigest() if grid.pretrained else ""
    budget = {k: v for k, v in asdict(run.budget).items() if k not in ("seeds", "grid")}
    return {
        "dataset": dataset, "data": run.data.name, "data_sha256": run.data.sha256,
        "sentiment": sentiment_scale(run.data), "profile": grid.profile, "profile_settings": _plain(budget),
        "text": grid.text, "pretrained": grid.pretrained, "pretrained_sha256": file, "epochs": grid.epochs,
        "steps": grid.steps, **changes, "varied": _short(re.sub(r"[^\w.,-]", "_", varied(grid.changes, changes))),
        "draws": grid.draws or run.draws, "library": version("imder-kit"), "environment": environment_hash(),
    }  # fmt: skip


def _short(text: str) -> str:
    """A part of file names; a long text is cut, and its hash tells it from others."""
    return text if len(text) <= 60 else f"{text[:51]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _plain(value: object) -> Any:
    return json.loads(json.dumps(value, default=dict))


def _stage(grid: Grid, head: dict[str, Any], label: str, seed: int) -> Cell | None:
    """The fusion stage that the cells of a seed share; None with a pretrained model."""
    if grid.pretrained:
        return None
    seed = grid.seeds[0] if grid.fusion == "shared" else seed
    kind = "shared" if grid.fusion == "shared" else "fusion"
    own = {k: v for k, v in head.items() if k not in ("draws", "steps", "sampler", "varied")}
    own |= {"kind": kind, "recipe": "staged", "recoverer": "", "seed": seed, "steps": 0, "sampler": {}}
    return Cell(f"{label}-{kind}-seed{seed}", own)


def cases_of(grid: Grid, rates: Sequence[float], modalities: Sequence[str], rate: float | None = None) -> list[Case]:
    """Test cases of a model: all of the grid, or those of its training rate.

    The release has no models for fixed patterns, so each pattern is tested with the model of the nearest rate: .7 (2/3)
    for two missing modalities of three, .3 for one, 0 for none; a case of protocol imbalanced with that of the rate
    nearest to its mean. These models are tested under protocol released too.
    """
    known = [case for _, case in cases("fixed", modalities)]
    if bad := [p for p in grid.patterns if p not in known]:
        raise unknown("unknown pattern", bad[0], known)
    fixed = [("fixed", p) for p in grid.patterns or known] if "fixed" in grid.protocols else []
    if "imbalanced" in grid.protocols:
        fixed += cases([("imbalanced", r) for r in grid.imbalanced] or "imbalanced", modalities)
    nominal = {c: nominal_rate(*c, modalities) for c in fixed}  # raises for rates that cannot be used
    others = [p for p in grid.protocols if p not in ("fixed", "imbalanced")]
    if rate is None:
        return fixed + [(p, r) for p in others for r in rates]
    own = [c for c in fixed if min(rates, key=lambda r: abs(r - nominal[c])) == rate]
    return own + [(p, rate) for p in dict.fromkeys([*others, "released"])]
