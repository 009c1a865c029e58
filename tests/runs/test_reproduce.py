"""The whole reproduction in profile smoke: notebooks, page and resuming."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat

from imder_runs.parallel_notebooks import TOLD, notebook_threads
from imder_runs.reproduce import ORDER


def test_reproduce_runs_every_notebook(tmp_path, monkeypatch):
    for name in TOLD:
        monkeypatch.delenv(name, raising=False)
    out = tmp_path / "run"
    command = [sys.executable, "-m", "imder_runs.cli", "reproduce", "--profile", "smoke", "--out", str(out)]
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
    assert fixed[0] == "case,rate,realised,bayes,imder,regression,dropout,mean,zero,constant"
    provenance = json.loads((out / "provenance.json").read_text())
    assert {"data_sha256", "versions", "device", "seeds", "seconds", "parameters"} <= provenance.keys()
    assert provenance["threads"] == (notebook_threads() or provenance["threads"])  # 0: PyTorch's own, on a GPU
    text = re.sub(r"data:image/[a-z+]+;base64,[A-Za-z0-9+/=]+", "", page)  # base64 text can contain any word
    assert text.count("<img") == page.count("data:image/") > 0
    assert "http" not in text.replace("http-equiv", "")  # no network access
    assert "published" not in text  # no published results beside synthetic data

    resumed = subprocess.run([*command, "--resume"], capture_output=True, text=True, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert Path(out / "index.html").exists()


def test_reproduce_takes_labels_that_are_classes(tmp_path, imder):
    """With a pretrained model: the notebooks that show digits whatever the data set have to use it as well."""
    out, stage = tmp_path / "run", tmp_path / "pretrained.safetensors"
    assert imder("pretrain", "digits", stage, "--profile", "smoke")[0] == 0
    command = ("reproduce", "--profile", "smoke", "--dataset", "digits", "--pretrained", stage, "--out", out)
    code, _, error = imder(*command)
    assert code == 0, error
    assert (out / "tables" / "05_fixed_acc.csv").read_text().startswith("case,rate,realised,imder,regression")
    assert "Fixed patterns: accuracy" in (out / "index.html").read_text()
