"""Check that this machine can run the course."""

import os
import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
import torch

PACKAGES = ("torch", "jupyterlab", "ipywidgets", "matplotlib", "pandas", "papermill", "scikit-learn")
DISK = 2.0  # GB for the results of the course in profile quick


def check_environment(folder: str | Path = ".") -> pd.DataFrame:
    """Check Python, packages, device, cores and disk: one row each, columns what, found, ready, "what to do".

    Args:
        folder: folder of the results; if it does not exist yet, free space is that of its nearest existing parent.
    """
    python = "install Python 3.11 or newer, then make PYTHON=python3.11 test"
    rows = [("Python", platform.python_version(), sys.version_info >= (3, 11), python)]
    for name in PACKAGES:
        try:
            rows.append((name, version(name), True, ""))
        except PackageNotFoundError:
            rows.append((name, "missing", False, "run make test, or pip install --editable . in the kit's folder"))
    rows.append(("device", "cuda" if torch.cuda.is_available() else "cpu", True, ""))
    rows.append(("cores", f"{os.cpu_count()}, PyTorch uses {torch.get_num_threads()}", True, ""))
    place = next(p for p in (Path(folder).resolve(), *Path(folder).resolve().parents) if p.exists())
    free, room = shutil.disk_usage(place).free / 1e9, f"make room: the course writes up to {DISK:g} GB to {place}"
    rows.append(("free disk", f"{free:.0f} GB", free >= DISK, room))
    table = pd.DataFrame(rows, columns=["what", "found", "ready", "what to do"])
    return table.assign(**{"what to do": table["what to do"].mask(table["ready"], "")})
