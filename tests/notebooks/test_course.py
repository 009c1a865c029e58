"""The command that executes the course and keeps its outputs."""

import os
import time
from pathlib import Path

import nbformat
import pytest

from imder_lib.errors import UserError
from imder_runs.parallel_notebooks import notebook_threads
from tools import course


def test_a_notebook_runs_once_until_it_changes_and_its_outputs_are_kept(tmp_path, monkeypatch):
    cell = nbformat.v4.new_code_cell("print(1)", id="a")
    for place in (tmp_path / "notebooks", tmp_path / "notebooks" / "solutions"):
        place.mkdir()
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), place / "one.ipynb")
    threads, ran = [], []

    def run_notebook(source, out, parameters, shown, **given):
        threads.append(given["threads"])
        ran.append(str(source.relative_to(tmp_path / "notebooks")))
        done = nbformat.read(source, as_version=4)
        done.cells[0].outputs = [nbformat.v4.new_output("stream", text="1\n")]
        out.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(done, out)

    monkeypatch.setattr(course, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(course, "SOLUTIONS", tmp_path / "notebooks" / "solutions")
    monkeypatch.setattr(course, "copy_exercises", list)
    monkeypatch.setattr(course, "run_notebook", run_notebook)
    course.run_course(tmp_path / "results", "smoke")
    course.run_course(tmp_path / "results", "smoke")  # nothing is left to do
    names = ["one.ipynb", "solutions/one.ipynb"]
    assert threads == [notebook_threads()] * 2 and ran == names
    later = time.time() + 5
    os.utime(tmp_path / "notebooks/one.ipynb", (later, later))
    course.run_course(tmp_path / "results", "smoke")  # the solution executes the notebook's code
    assert ran == names * 2
    for name in names:
        kept = nbformat.read(tmp_path / "notebooks" / name, as_version=4)
        assert kept.cells[0].outputs[0].text == "1\n"


def test_exercises_are_copied_as_a_whole(tmp_path, monkeypatch):
    heading, cell = nbformat.v4.new_markdown_cell("## Exercises"), nbformat.v4.new_markdown_cell("Why?")
    cell.metadata["tags"] = ["exercise"]
    (tmp_path / "solutions").mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[heading]), tmp_path / "one.ipynb")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "solutions/one.ipynb")
    before = (tmp_path / "one.ipynb").read_text()
    monkeypatch.setattr(course, "NOTEBOOKS", tmp_path)
    monkeypatch.setattr(course, "SOLUTIONS", tmp_path / "solutions")
    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("interrupted")))
        with pytest.raises(UserError, match="interrupted"):
            course.copy_exercises()
    assert (tmp_path / "one.ipynb").read_text() == before
    assert course.copy_exercises() == ["one.ipynb"]
    assert course.copy_exercises() == []
    assert nbformat.read(tmp_path / "one.ipynb", as_version=4).cells[1].source == "Why?"
