"""environment.yml, pyproject.toml and requirements.lock agree."""

import subprocess
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
FILES = ("pyproject.toml", "requirements.lock", "environment.yml")


def disagreements(pyproject: str, lock: str, environment: str) -> list[str]:
    """Differences between the three files; empty if they agree."""
    project = tomllib.loads(pyproject)["project"]
    extras = [r for group in project["optional-dependencies"].values() for r in group]
    wanted = {canonicalize_name(r.name): r.specifier for r in map(Requirement, project["dependencies"] + extras)}
    lines = [line for line in lock.splitlines() if line.strip()]
    locked = _pins(lines)
    conda = yaml.safe_load(environment)["dependencies"]
    (pip,) = [d["pip"] for d in conda if isinstance(d, dict)]
    (python,) = [d for d in conda if isinstance(d, str) and d.startswith("python")]
    options = {line for line in pip if line.startswith("--")}
    direct = _pins([line for line in pip if line not in options])
    found = [f"lock: {line} is no exact pin" for line in lines if line not in {f"{n}=={v}" for n, v in _split(lines)}]
    for name, specifier in wanted.items():
        if name not in locked:
            found.append(f"lock: {name} is missing")
        elif not specifier.contains(locked[name]):
            found.append(f"lock: {name} {locked[name]} is outside {specifier}")
        if direct.get(name) != locked.get(name):
            found.append(f"environment: {name} {direct.get(name)}, locked {locked.get(name)}")
    found += [f"environment: {line} stands twice" for line, n in Counter(pip).items() if n > 1]
    found += [f"environment: {name} is no dependency of the project" for name in direct.keys() - wanted.keys()]
    if SpecifierSet(python.removeprefix("python")) != SpecifierSet(project["requires-python"]):
        found.append(f"environment: {python}, pyproject {project['requires-python']}")
    if options != {"--constraint requirements.lock", "--editable .[dev]"}:
        found.append(f"environment: pip options {sorted(options)}")
    if not (str(wanted.get("torch")) == "==2.13.0" and locked.get("torch") == direct.get("torch") == "2.13.0"):
        found.append("torch is not 2.13.0 everywhere")
    return found


def _split(lines: list[str]) -> list[tuple[str, str]]:
    return [(name, version) for name, _, version in (line.partition("==") for line in lines)]


def _pins(lines: list[str]) -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in _split(lines)}


def texts() -> dict[str, str]:
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in FILES}


def test_the_three_files_agree():
    assert disagreements(*texts().values()) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("environment.yml", "numpy==", "numpy==0", "environment: numpy"),
        ("environment.yml", "- numpy==", "- numpy-financial==", "no dependency"),
        (
            "environment.yml",
            "      - --editable",
            "      - torch==2.13.0\n      - --editable",
            "torch==2.13.0 stands twice",
        ),
        ("environment.yml", "python>=3.11", "python>=3.10", "environment: python>=3.10"),
        ("environment.yml", "--constraint requirements.lock", "--pre", "pip options"),
        ("requirements.lock", "\npandas==", "\nzpandas==", "lock: pandas is missing"),
        ("requirements.lock", "\npandas==", "\npandas==0.", "lock: pandas 0."),
        ("requirements.lock", "\npandas==", "\npandas>=", "no exact pin"),
        ("requirements.lock", "\ntorch==2.13.0", "\ntorch==2.13.1", "torch is not 2.13.0"),
        ("pyproject.toml", "papermill>=2.7,<3", "papermill>=3", "lock: papermill"),
        ("pyproject.toml", "torch==2.13.0", "torch>=2.13.0", "torch is not 2.13.0"),
        ("pyproject.toml", "ruff>=", "rufus>=", "lock: rufus is missing"),
    ],
)
def test_a_difference_is_found(file, old, new, message):
    changed = texts()
    assert old in changed[file]
    changed[file] = changed[file].replace(old, new, 1)
    assert any(message in line for line in disagreements(*changed.values()))


@pytest.mark.parametrize("fails", [False, True])
def test_a_lock_is_renewed_as_a_whole(tmp_path, fails):
    """With a Python that installs nothing."""
    lock, python = tmp_path / "requirements.lock", tmp_path / "python"
    lock.write_text("old==1\n", encoding="utf-8")
    freeze = "*freeze*) exit 1" if fails else "*freeze*) echo torch==2.13.0+cpu"
    python.write_text(
        "#!/bin/sh\n"
        f'case "$*" in "-m venv"*) mkdir -p .venv-lock/bin; cp "$0" .venv-lock/bin/python;; {freeze};; esac\n'
    )
    python.chmod(0o755)
    done = subprocess.run(["make", "-f", ROOT / "Makefile", "lock", f"PYTHON={python}"], cwd=tmp_path)
    assert (done.returncode != 0) == fails
    assert lock.read_text(encoding="utf-8") == ("old==1\n" if fails else "torch==2.13.0\n")


def test_citation_names_the_kit_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads(texts()["pyproject.toml"])["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
    assert citation["preferred-citation"]["title"] in project["description"]
