"""What a wheel holds, and where a run from one writes."""

import json
from pathlib import Path

import pytest

from imder_runs import notebook, places

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """Files in a wheel, by their paths in it, as setuptools would copy them."""
    setuptools = pytest.importorskip("setuptools")
    monkeypatch.chdir(ROOT)
    project = setuptools.Distribution({"script_name": "setup.py"})
    project.parse_config_files(["pyproject.toml"])
    project.get_command_obj("egg_info").egg_base = str(tmp_path)  # not in the checkout
    build = project.get_command_obj("build_py")
    build.build_lib = str(tmp_path)
    build.ensure_finalized()
    return {Path(path).relative_to(tmp_path).as_posix() for path in build.get_outputs(include_bytecode=False)}


def test_a_wheel_holds_all_modules_their_files_and_the_notebooks(wheel):
    packages = [path for folder in ("imder_lib", "imder_runs", "imder_course") for path in (ROOT / folder).rglob("*.*")]
    own = {path.relative_to(ROOT).as_posix() for path in packages if "__pycache__" not in path.parts}
    notebooks = {f"imder_course/notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert wheel == own | notebooks
    assert len(notebooks) == 9


def test_a_notebook_of_the_package_writes_below_the_current_folder(write_notebook, tmp_path, monkeypatch):
    source = write_notebook('out: str = "../results"  # a folder', "")
    jobs = []
    monkeypatch.setattr(notebook, "_child", lambda job, timeout, threads: jobs.append(json.loads(job)) or (0, ""))
    monkeypatch.setattr(notebook, "NOTEBOOKS", source.parent)
    monkeypatch.chdir(tmp_path)
    for checkout, given in ((True, {}), (False, {}), (False, {"out": "mine"})):
        monkeypatch.setattr(notebook, "CHECKOUT", checkout)
        notebook.run_notebook(source, tmp_path / "done.ipynb", given)
    assert [job["parameters"] for job in jobs] == [
        {},
        {"out": str(tmp_path / "results" / "notebooks")},
        {"out": "mine"},
    ]
    assert [job["cwd"] for job in jobs] == [str(source.parent), str(tmp_path), str(tmp_path)]


def test_a_notebook_of_the_kit_is_found_by_name(imder, write_notebook, tmp_path, monkeypatch):
    monkeypatch.setattr("imder_runs.cli.NOTEBOOKS", write_notebook("", "print(1)").parent)
    monkeypatch.chdir(tmp_path)
    code, text, _ = imder("run", "tiny.ipynb")
    assert (code, text.splitlines()[-1]) == (0, "executed: results/executed/tiny.ipynb")
    assert (tmp_path / "results" / "executed" / "tiny.ipynb").is_file()
    assert imder("run", "other.ipynb")[0] == 2


def test_a_pretrained_model_goes_to_the_current_folder(imder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, text, _ = imder("pretrain", "synthetic", "--profile", "smoke", "--epochs", 1)
    assert (code, text.splitlines()[-1]) == (0, f"pretrained: {tmp_path}/pt/pretrained-synthetic.safetensors")
    assert places.CHECKOUT
    assert places.HOME == ROOT
