"""Milliseconds from the change of a control to the new figure of a panel: python benchmarks/panels.py.

Sets each control to its values, with the others at their initial values, in RecoveryPanel (digits in profile quick,
trained in about a minute and stored in OUT; synthetic data in profile smoke) and in MissingRatePanel. The last row of a
RecoveryPanel changes the sample, with the others at their slowest values. The time of the browser is not included.
"""

import argparse
import os
import time
from collections.abc import Iterable

import ipywidgets as widgets
import numpy as np
import torch

from imder_course.decoding import Decoder, image
from imder_course.panels import MissingRatePanel, Panel, RecoveryPanel
from imder_course.style import use_style
from imder_lib import evaluate
from imder_lib.model.imder import IMDer
from imder_runs.setup import Run, start_run

LIMIT = 300  # ms
MOST = 12  # maximum number of values per control
SLOWEST = {"sampler": "heun", "steps": 20, "draws": 8, "guidance": 3.0}


def values(control: widgets.Widget) -> list:
    """Values of a control, at most MOST for a slider."""
    if isinstance(control, widgets.Checkbox):
        return [not control.value, control.value]
    if hasattr(control, "options"):
        return [option[1] if isinstance(option, tuple) else option for option in control.options]
    return np.arange(control.min, control.max + control.step / 2, control.step)[:MOST].tolist()


def milliseconds(panel: Panel, name: str, rounds: int) -> list[float]:
    """Time of each change of one control that gives a figure."""
    control, found = panel.controls[name], []
    start = control.value
    for value in [*values(control), start] * rounds:
        if value == control.value:
            continue
        began = time.perf_counter()
        control.value = value  # returns after the redraw
        if not panel.message.value:
            found.append(1000 * (time.perf_counter() - began))
    return found


def report(title: str, panel: Panel, rounds: int) -> bool:
    """Print one line per control; return whether all times are below the limit."""
    print(f"{title}\n  {'control':16}{'changes':>8}{'median':>8}{'most':>8} ms, limit {LIMIT}")

    def line(label: str, times: Iterable[float]) -> bool:
        times = list(times)
        print(f"  {label:16}{len(times):8}{np.median(times):8.0f}{max(times):8.0f}", flush=True)
        return max(times) < LIMIT

    fine = [line(name, milliseconds(panel, name, rounds)) for name in panel.controls]
    if isinstance(panel, RecoveryPanel):
        for name, value in SLOWEST.items():
            panel.controls[name].value = value
        fine.append(line("sample, slowest", milliseconds(panel, "sample", rounds)))
    return all(fine)


def recovery_panel(run: Run, model: IMDer) -> RecoveryPanel:
    if run.data.name != "digits":
        return RecoveryPanel(model, run.data.test, run.data.modalities[0])
    decoder = Decoder(model, run.data.steps)
    pictures = lambda latents: image({m: x.cpu().numpy() for m, x in decoder(latents).items()})  # noqa: E731
    return RecoveryPanel(model, run.data.test, "bottom", pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", default="results/panels")
    args = parser.parse_args()
    use_style()
    fine = []
    for dataset, profile in (("digits", "quick"), ("synthetic", "smoke")):
        run = start_run(dataset, profile, "1", f"{args.out}/{profile}")
        model = run.train(1).model
        print(f"{torch.get_num_threads()} threads, system load {os.getloadavg()[0]:.1f}")
        fine.append(report(f"RecoveryPanel, {dataset}, {profile}", recovery_panel(run, model), args.rounds))
    table = evaluate(model, run.data.test, ["random"], [1])
    fine.append(report("MissingRatePanel", MissingRatePanel(table, ["acc2", "mae", "corr"]), args.rounds))
    print("all changes are below the limit" if all(fine) else "some changes exceed the limit")


if __name__ == "__main__":
    main()
