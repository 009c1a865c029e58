"""The environment check, and the buttons that open the course on hosted machines."""

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from imder_course import environment
from imder_lib import UserError
from tools import launch

ROOT = Path(__file__).resolve().parents[2]


def test_this_machine_is_ready(tmp_path):
    table = environment.check_environment(tmp_path / "not" / "there")
    assert table["ready"].all(), table
    assert list(table["what"][:2]) == ["Python", "torch"]
    assert (table["what to do"] == "").all()


def test_missing_requirements_have_instructions(monkeypatch):
    def version(name):
        if name == "ipywidgets":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(environment, "version", version)
    monkeypatch.setattr(environment, "DISK", 1e9)
    monkeypatch.setattr(environment.sys, "version_info", (3, 10, 0))
    table = environment.check_environment().set_index("what")
    assert list(table.index[~table["ready"]]) == ["Python", "ipywidgets", "free disk"]
    assert "make test" in table.loc["ipywidgets", "what to do"]
    assert "make room" in table.loc["free disk", "what to do"]


def test_buttons_open_the_first_notebook():
    rows = launch.buttons("some-one/imder.kit", "dev").splitlines()
    links = [row.rsplit("](", 1)[1].rstrip(")") for row in rows]
    assert [urlsplit(link).hostname for link in links] == [
        "colab.research.google.com",
        "codespaces.new",
        "mybinder.org",
    ]
    assert all("some-one/imder.kit" in link and "dev" in link for link in links)
    assert (ROOT / launch.START).is_file()


@pytest.mark.parametrize("bad", ["", "name", "a/b/c", "a b/c", "https://github.com/a/b"])
def test_bad_repository_names_raise(bad):
    with pytest.raises(UserError, match="OWNER/NAME"):
        launch.buttons(bad)


def test_a_bad_repository_name_is_one_line():
    done = subprocess.run([sys.executable, "-m", "tools.launch", "a/b/c"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1


def test_hosted_machines_install_the_locked_versions():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["postCreateCommand"].split()[0] == "make"
    lines = (ROOT / ".binder" / "requirements.txt").read_text().split()
    constraint = lines[lines.index("--constraint") + 1]
    assert (ROOT / ".binder" / constraint).resolve() == ROOT / "requirements.lock"
    assert (ROOT / ".binder" / "runtime.txt").read_text().strip() == "python-3.11"
