"""The main job: the notebooks of a reproduction in order, then one page."""

import json
import os
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from imder_lib.data.load import NAMES
from imder_lib.data.missing import RATES
from imder_lib.errors import UserError
from imder_lib.runs.notebook import check_parameters, run_notebook
from imder_lib.runs.report import write_report
from imder_lib.runs.setup import Options, Run, command_line, start_run, write_options
from imder_lib.runs.sweep import PAPER_SEEDS, RECIPES, parse_list, pretrain_run, sweep, with_pretrained

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
ORDER = ("01_data", "03_recovery", "04_training", "05_missing_rate_tables")
RUN = "run.json"


def open_run(
    dataset: str,
    profile: str,
    seeds: str,
    out: str | Path,
    resume: bool,
    options: Options | None,
    extra: dict[str, str],
) -> tuple[Run, dict[str, object]]:
    """A run in a new folder, or one that goes on in its own; nothing is left of a folder that could not be used.

    Returns:
        the run, and its settings as run.json keeps them: ``extra`` and everything that makes a run another run.
    """
    options = options or Options()
    pretrained = str(Path(options.pretrained).resolve()) if options.pretrained else ""
    options = replace(options, pretrained=pretrained)
    folder = Path(out).resolve()
    seeds = seeds or (PAPER_SEEDS if profile == "paper" else "1")
    named = dataset if dataset in NAMES else str(Path(dataset).resolve())
    settings = {"dataset": named, "profile": profile, "seeds": seeds, **asdict(options), **extra}
    settings.pop("download_bert")
    fresh = not folder.exists()
    if not fresh and not resume:
        raise UserError(f"{folder} exists already: name another folder, or go on with it by --resume")
    if not fresh and _read(folder / RUN) != settings:
        raise UserError(f"{folder} holds a run with other settings: name another folder")
    if not os.access(next(p for p in (folder, *folder.parents) if p.exists()), os.W_OK):
        raise UserError(f"{folder} cannot be written: no permission")
    try:
        run = start_run(named, profile, seeds, folder, options)
    except UserError:
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    (folder / RUN).write_text(json.dumps(settings))
    write_options(run)
    return run, settings


def run_sweep(
    dataset: str,
    profile: str,
    seeds: str,
    out: str | Path,
    *,
    recipes: str = "staged",
    rates: str = "",
    resume: bool = False,
    options: Options | None = None,
) -> Path:
    """The paper's grid without the notebooks: OUT/cells, OUT/tables.

    Args:
        dataset, profile, seeds, out, resume, options: see :func:`reproduce`.
        recipes: "staged", "released" or both, joined by commas.
        rates: of the random protocol, "0.1,0.5"; all eight if empty.
    """
    recipe_list, rate_list = parse_list(recipes, RECIPES, "recipe"), parse_list(rates, RATES, "rate")
    run, _ = open_run(dataset, profile, seeds, out, resume, options, {"recipes": recipes, "rates": rates})
    run = with_pretrained(run)
    write_options(run)
    sweep(run, recipe_list, rate_list)
    return run.folder / "tables"


def pretrain_alone(
    dataset: str, profile: str, seed: int, path: Path | None, options: Options, *, resume: bool = False
) -> Path:
    """Stage 1 alone; its checkpoints stand in a folder beside the result until it is written.

    Args:
        path: of the result; None: pt/pretrained-<dataset>.safetensors of the checkout.
        dataset, profile, options, resume: see :func:`reproduce`.
    """
    name = dataset if dataset in NAMES else Path(dataset).stem
    path = NOTEBOOKS.parent / "pt" / f"pretrained-{name}.safetensors" if path is None else path.resolve()
    folder = path.with_suffix(".run")
    for place in (path, folder):
        if place.exists() and not (resume and place == folder):
            raise UserError(f"{place} exists already: name another result, remove it, or go on by --resume")
    run = start_run(dataset, profile, str(seed), folder, options)
    pretrain_run(run, seed, folder, path)
    shutil.rmtree(folder)
    return path


def reproduce(
    dataset: str,
    profile: str,
    seeds: str,
    out: str | Path,
    *,
    resume: bool = False,
    timeout: float = 48 * 3600,
    options: Options | None = None,
    recipes: str = "staged",
) -> Path:
    """Run 01, 03, 04 and 05 and write OUT/index.html, tables, figures, executed notebooks and provenance.

    Profile "paper" first runs the grid of :mod:`imder_lib.runs.sweep`; its notebooks show the first seed.

    Args:
        dataset: "synthetic", "gaussian", "mosi", "mosei" or a path.
        profile: "smoke", "quick", "full" or "paper".
        seeds: "1" or "1,2,3"; one model each. "": 1, or 1111 to 1119 in profile "paper".
        out: a folder that does not exist yet (or, with ``resume``, that of a run with the same settings).
        resume: go on with a run that was cut off; finished notebooks and epochs are not repeated.
        timeout: seconds for each notebook.
        options: text route, pretrained model, epochs, sampler steps.
        recipes: of profile "paper": "staged" (one model for all rates), "released" (one for each), or both.

    Returns:
        path of index.html
    """
    started = time.perf_counter()
    recipe_list = parse_list(recipes, RECIPES, "recipe")
    run, settings = open_run(dataset, profile, seeds, out, resume, options, {"recipes": recipes})
    folder, seconds = run.folder, {}
    shown = {k: settings[k] for k in ("dataset", "profile")} | {"out": str(folder)}
    shown["seeds"] = str(run.seeds[0]) if profile == "paper" else settings["seeds"]
    for name in ORDER:  # every notebook and its parameters are checked before the first one runs
        check_parameters(NOTEBOOKS / f"{name}.ipynb", shown)
    if profile == "paper" or run.options.text == "bert-finetune":
        begun = time.perf_counter()
        run = with_pretrained(run)
        write_options(run)
        if profile == "paper":
            sweep(run, recipe_list)
        seconds["sweep"] = round(time.perf_counter() - begun, 1)
    order = ORDER if profile != "paper" or "staged" in recipe_list else ORDER[:1]
    provenance = run.provenance() | {"command": command_line(), "parameters": settings, "notes": _notes(run)}
    del run  # the notebooks load their own
    done = folder / "notebooks"
    for name in order:
        target, marker = done / f"{name}.ipynb", done / f".{name}.done"
        begun = time.perf_counter()
        if not marker.exists():
            print(f"{name} ...", flush=True)
            run_notebook(NOTEBOOKS / f"{name}.ipynb", target, shown, timeout=timeout)
            marker.touch()
        seconds[name] = round(time.perf_counter() - begun, 1)
        print(f"{name} done, {seconds[name]:.0f} s", flush=True)
    provenance |= {"seconds": round(time.perf_counter() - started, 1), "seconds_each": seconds}
    return write_report(folder, provenance)


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{path.parent} is no run of this kit (no {path.name} to read): name another folder") from None


def _notes(run) -> list[str]:
    notes = []
    if run.data.process is not None:
        notes.append("Synthetic data: drawn from a known process, not measured on people.")
    if run.data.fake:
        notes.append("Fake data in the shape of the original, written by imder fake: the numbers mean nothing.")
    if run.profile == "smoke":
        notes.append("Profile smoke only shows that everything runs: its numbers mean nothing.")
    if run.data.sentiment_scale:
        notes.append("Labels are sentiments in [-3, 3]: all metrics make sense.")
    else:
        notes.append(
            "Labels are no sentiments in [-3, 3] on both sides of 0: read MAE and correlation; ACC2, F1, ACC5 and ACC7 "
            "say nothing here and are left out of the tables and figures."
        )
    if not torch.accelerator.is_available():
        notes.append("Computed on the CPU.")
    return notes
