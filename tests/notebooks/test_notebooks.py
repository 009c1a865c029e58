"""Every notebook: its form, and that the whole run goes through in profile smoke."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from imder_lib.runs.notebook import notebook_parameters
from imder_lib.runs.reproduce import NOTEBOOKS, ORDER

ALL = sorted(NOTEBOOKS.glob("*.ipynb"))


@pytest.mark.parametrize("path", ALL, ids=lambda p: p.stem)
def test_form(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    assert text.startswith(f"# {path.stem[:2]} ")
    for part in ("You will know", "**Time**", "Predict", "## Exercises", "## Recap", "What could be wrong"):
        assert part in text, part
    assert max(len(c.source.splitlines()) for c in code) <= 15
    assert notebook.metadata.kernelspec.name == "python3"
    for parameter in notebook_parameters(path).values():
        assert parameter.help, f"{parameter.name} has no # help"
    assert any(c.outputs for c in code), "committed without outputs"
    assert not any(o.output_type == "error" for c in code for o in c.outputs)
    assert path.stat().st_size < 2_000_000


def test_reproduce_runs_every_notebook(tmp_path):
    assert [p.stem for p in ALL] == list(ORDER)  # a new notebook must be executed here too
    out = tmp_path / "run"
    command = [sys.executable, "-m", "imder_lib.cli", "reproduce", "--profile", "smoke", "--out", str(out)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    page = (out / "index.html").read_text()
    for name in ORDER:
        executed = nbformat.read(out / "notebooks" / f"{name}.ipynb", as_version=4)
        code = [c for c in executed.cells if c.cell_type == "code" and c.source.strip()]
        assert all(c.execution_count for c in code)
        assert f"notebooks/{name}.ipynb" in page
    for path in (*(out / "tables").glob("*.csv"), *(out / "figures").glob("*.png")):
        assert path.stat().st_size > 0
    fixed = (out / "tables" / "05_fixed_acc2.csv").read_text().splitlines()
    random = (out / "tables" / "05_random_acc2.csv").read_text().splitlines()
    assert (len(fixed), len(random)) == (1 + 7, 1 + 8)
    assert fixed[0] == "condition,rate,realised,bayes,imder,mean,zero,constant"
    provenance = json.loads((out / "provenance.json").read_text())
    assert {"data_sha256", "versions", "device", "seeds", "seconds", "parameters"} <= provenance.keys()
    assert "http" not in page.replace("http-equiv", "")  # opens from disk: nothing is fetched
    assert "published" not in page  # never beside synthetic data

    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr.count("\n") == 1
    assert "exists" in again.stderr
    resumed = subprocess.run([*command, "--resume"], capture_output=True, text=True, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert Path(out / "index.html").exists()
