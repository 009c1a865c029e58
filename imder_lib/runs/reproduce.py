"""The main job: the notebooks of a reproduction in order, then one page."""

import json
import os
import shutil
import time
from pathlib import Path

import torch

from imder_lib.config import WIDTHS
from imder_lib.errors import UserError
from imder_lib.runs.notebook import check_parameters, run_notebook
from imder_lib.runs.report import write_report
from imder_lib.runs.setup import command_line, start_run

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
ORDER = ("01_data", "03_recovery", "04_training", "05_missing_rate_tables")
RUN = "run.json"


def reproduce(
    dataset: str, profile: str, seeds: str, out: str | Path, *, resume: bool = False, timeout: float = 48 * 3600
) -> Path:
    """Run 01, 03, 04 and 05 and write OUT/index.html, tables, figures, executed notebooks and provenance.

    Args:
        dataset: "synthetic", "mosi", "mosei" or a path.
        profile: "smoke", "quick" or "paper".
        seeds: "1" or "1,2,3"; one model each.
        out: a folder that does not exist yet (or, with ``resume``, that of a run with the same settings).
        resume: go on with a run that was cut off; finished notebooks and epochs are not repeated.
        timeout: seconds for each notebook.

    Returns:
        path of index.html
    """
    started = time.perf_counter()
    folder = Path(out).resolve()
    settings = {"dataset": dataset if dataset in ("synthetic", *WIDTHS) else str(Path(dataset).resolve())}
    settings |= {"profile": profile, "seeds": seeds}
    fresh = not folder.exists()
    if not fresh and not resume:
        raise UserError(f"{folder} exists already: name another folder, or go on with it by --resume")
    if not fresh and _read(folder / RUN) != settings:
        raise UserError(f"{folder} holds a run with other settings: name another folder")
    if not os.access(next(p for p in (folder, *folder.parents) if p.exists()), os.W_OK):
        raise UserError(f"{folder} cannot be written: no permission")
    run = None
    try:
        run = start_run(settings["dataset"], profile, seeds, folder)
        for name in ORDER:  # every notebook and its parameters are checked before the first one runs
            check_parameters(NOTEBOOKS / f"{name}.ipynb", settings | {"out": str(folder)})
    except UserError:
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    (folder / RUN).write_text(json.dumps(settings))
    provenance = run.provenance() | {"command": command_line(), "parameters": settings, "notes": _notes(run)}
    del run  # the notebooks load their own
    seconds = {}
    done = folder / "notebooks"
    for name in ORDER:
        target, marker = done / f"{name}.ipynb", done / f".{name}.done"
        begun = time.perf_counter()
        if not marker.exists():
            print(f"{name} ...", flush=True)
            run_notebook(NOTEBOOKS / f"{name}.ipynb", target, settings | {"out": str(folder)}, timeout=timeout)
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
