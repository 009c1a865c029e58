"""Cells that cost nothing: what an engine does with them can be seen in seconds."""

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def body(settings: Mapping[str, Any], folder: Path, stage: Path | None) -> None:
    """Note the start in a file, sleep, and write numbers that the settings alone decide."""
    if settings.get("log"):
        with open(settings["log"], "a") as file:
            file.write(f"{settings['number']} {time.time()}\n")
    time.sleep(settings["sleep"])
    if settings.get("error"):
        raise ValueError(settings["error"] + "\nsecond line")
    total = settings["number"] + (json.loads((stage / "metrics.json").read_text())[0]["value"] if stage else 0)
    with (folder / "metrics.json").open("w") as file:
        json.dump([{"value": total}], file)


def dies(settings: Mapping[str, Any], folder: Path, stage: Path | None) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def cores(settings: Mapping[str, Any], folder: Path, stage: Path | None) -> None:
    """Write the cores that the cell may use."""
    time.sleep(0.5)  # so that each worker gets a cell
    (folder / "metrics.json").write_text(json.dumps([{"cores": sorted(os.sched_getaffinity(0))}]))


def large(settings: Mapping[str, Any], folder: Path, stage: Path | None) -> None:
    time.sleep(60)
