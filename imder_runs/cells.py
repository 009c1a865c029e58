"""Cells of a sweep: their identity, and what one does. A cell trains one model and tests it, or is a fusion stage."""

import hashlib
import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import pandas as pd
from packaging.requirements import Requirement

from imder_lib.errors import UserError
from imder_lib.experiment.evaluation import evaluate
from imder_lib.experiment.training import FitResult, fit
from imder_lib.files import write_text, written_whole
from imder_lib.model.imder import IMDer
from imder_runs.extension import file_hash, load_extension
from imder_runs.pretrain import like_pretrained, load_pretrained, pretrain, read_pretrained
from imder_runs.setup import Run, default_device, start_run

CHANGED = ("model", "train", "sampler")  # groups of settings, see Run.changes
PLACES = ("dataset", "pretrained", "extension")  # settings that are paths: the hashes of the files stand for them
METRICS = "metrics.json"  # rows of the test; none in a fusion stage
PRETRAINED = "pretrained.safetensors"  # of a cell of kind "shared"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        label: what a reader sees: data set, recoverer, changed settings, seed.
        settings: JSON values. "kind" is "cell", or that of a fusion stage: "fusion" (one seed) or "shared" (all seeds).
        needs: name of the fusion stage that must be finished before; empty: none.
    """

    label: str
    settings: Mapping[str, Any]
    needs: str = ""

    @cached_property
    def name(self) -> str:
        """Name of the cell's folder: the label and twelve digits of the identity."""
        known = {k: v for k, v in self.settings.items() if k not in PLACES} | {"needs": self.needs}
        return f"{self.label}-{hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]}"


@cache
def environment() -> dict[str, str]:
    """Versions of Python and of every package that the kit needs; part of a cell's identity."""
    names = [Requirement(line) for line in requires("imder-kit") or []]
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in sorted(r.name for r in names if not r.marker or r.marker.evaluate({"extra": ""})):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def environment_hash() -> str:
    return hashlib.sha256(json.dumps(environment(), sort_keys=True).encode()).hexdigest()[:16]


def run_of(settings: Mapping[str, Any], folder: Path, stage: Path | None) -> Run:
    """The run that a cell's settings describe; ``stage`` is the folder of the fusion stage that it needs."""
    if path := settings.get("extension", ""):
        load_extension(path)
        if file_hash(path) != settings["extension_sha256"]:
            raise UserError(f"{path} has changed since the sweep was started: start the sweep again")
    if settings["environment"] != environment_hash():
        raise UserError("this worker has other package versions than the sweep: install requirements.lock on both")
    if settings["pretrained"] and file_hash(settings["pretrained"]) != settings["pretrained_sha256"]:
        raise UserError(f"{settings['pretrained']} has changed since the sweep was started: start the sweep again")
    pretrained = str(stage / PRETRAINED) if stage and (stage / PRETRAINED).exists() else settings["pretrained"]
    given = {k: settings[k] for k in ("text", "epochs", "steps")} | {"pretrained": pretrained}
    given["changes"] = {k: settings[k] for k in CHANGED}
    run = start_run(settings["dataset"], settings["profile"], str(settings["seed"]), folder, create=False, **given)
    if run.data.sha256 != settings["data_sha256"]:
        raise UserError(f"{settings['dataset']} holds other data on this worker than where the sweep was started")
    return run


def train_and_test(settings: Mapping[str, Any], folder: Path, stage: Path | None) -> None:
    """Fill a cell's folder: history.csv, metrics.json and checkpoint/. Continues what is there.

    Args:
        settings: of the cell.
        folder: of the cell.
        stage: folder of the finished fusion stage, if the cell needs one.
    """
    kind, run = settings["kind"], run_of(settings, folder, stage)
    seed, home = run.seeds[0], run.model_folder(run.seeds[0])
    trained = {"cell": settings["recoverer"], "fusion": "fusion"}.get(kind, "shared")
    if not (folder / METRICS).exists():
        rows = []
        if kind == "shared":
            pretrain_run(run, seed, home / trained, folder / PRETRAINED)
            history = pd.read_csv(home / trained / "history.csv")
        elif kind == "fusion":
            history = run.train(seed, until="fusion").history
        else:
            if stage and (stage / "checkpoint").exists() and not (home / "fusion").exists():  # not of kind shared
                copy_folder(stage / "checkpoint", home / "fusion")
            result = train_cell(run, settings, home)
            history, rows = result.history, test_cell(result.model, run, settings)
        write_text(folder / "history.csv", history.to_csv(index=False))
        write_text(folder / METRICS, json.dumps(rows, indent=0))
    if kind != "shared" and (home / trained).exists():  # else a former attempt was cut off here
        (home / trained).rename(folder / "checkpoint")
    shutil.rmtree(folder / "models", ignore_errors=True)


def test_cell(model: IMDer, run: Run, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of :func:`imder_lib.evaluate` for a cell's cases, with what tells the cells of a sweep apart."""
    (seed,) = run.seeds
    batch = run.train_config(seed).batch_size
    cases = [(p, case, batch) if p == "released" else (p, case) for p, case in settings["cases"]]
    table = evaluate(model, run.data.test, cases, [seed], draws=settings["draws"])
    table = table.assign(dataset=run.data.name, **{k: settings[k] for k in ("recipe", "recoverer", "varied")})
    return table.astype(object).where(table.notna(), None).to_dict("records")


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder so that ``target`` is whole or absent."""
    with written_whole(target, new=True) as part:
        shutil.copytree(source, part, dirs_exist_ok=True)


def train_cell(run: Run, settings: Mapping[str, Any], home: Path) -> FitResult:
    """Train the model of a cell, or continue its training."""
    seed = run.seeds[0]
    if settings["recipe"] == "staged":
        return run.train(seed, settings["recoverer"])
    weights = read_pretrained(run.pretrained)
    model = IMDer(like_pretrained(run.model_config("released"), weights), seed=seed).to(default_device())
    load_pretrained(model, weights)
    config = replace(run.train_config(seed), recipe="released", rate=settings["rate"])
    return fit(model, run.data, config, home / "released", resume=True)


def pretrain_run(run: Run, seed: int, folder: Path, path: Path) -> None:
    """Run the fusion stage, with BERT under text "bert-finetune"; see :func:`pretrain`."""
    bert, config = None, run.model_config()
    if run.text == "bert-finetune":
        bert = run.bert()
        config = replace(config, widths={**config.widths, "text": bert.config.hidden_size})
    model = IMDer(config, seed=seed).to(default_device())
    pretrain(model, run.data, run.train_config(seed), folder, path, bert=bert, resume=True)
