"""Is this machine ready for the course? One row a question, each with what to do if the answer is no."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
import torch

PACKAGES = ("torch", "jupyterlab", "ipywidgets", "matplotlib", "pandas", "papermill", "scikit-learn")
DISK = 2.0  # GB for the results of the course in profile quick


def check_environment(folder: str | Path = ".") -> pd.DataFrame:
    """Python, packages, device, cores and disk.

    Args:
        folder: where results will go; an existing one above it is asked for space.

    Returns:
        columns what, found, ready, what to do
    """
    rows = []

    def ask(what: str, found: str, ready: bool, todo: str) -> None:
        rows.append({"what": what, "found": found, "ready": ready, "what to do": "" if ready else todo})

    python = platform.python_version_tuple()
    enough = (int(python[0]), int(python[1])) >= (3, 11)
    ask("Python", platform.python_version(), enough, "install Python 3.11 or newer, then make PYTHON=python3.11 test")
    for name in PACKAGES:
        try:
            ask(name, version(name), True, "")
        except PackageNotFoundError:
            ask(name, "missing", False, "run make test, or pip install --editable . in the kit's folder")
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    ask("device", str(accelerator or "cpu"), True, "")
    ask("cores", f"{os.cpu_count()}, PyTorch uses {torch.get_num_threads()}", True, "")
    place = next(p for p in (Path(folder).resolve(), *Path(folder).resolve().parents) if p.exists())
    free = shutil.disk_usage(place).free / 1e9
    ask("free disk", f"{free:.0f} GB", free >= DISK, f"make room: the course writes up to {DISK:g} GB to {place}")
    return pd.DataFrame(rows)
