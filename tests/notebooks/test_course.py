"""The command that executes the course and keeps its outputs."""

import nbformat

from imder_runs.parallel_notebooks import notebook_threads
from tools import course


def test_every_notebook_runs_once_and_its_outputs_are_kept(tmp_path, monkeypatch):
    cell = nbformat.v4.new_code_cell("print(1)", id="a")
    for place in (tmp_path / "notebooks", tmp_path / "notebooks" / "solutions"):
        place.mkdir()
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), place / "one.ipynb")
    threads = []

    def run_notebook(source, out, parameters, shown, **given):
        threads.append(given["threads"])
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
    assert threads == [notebook_threads()] * 2
    for name in ("one.ipynb", "solutions/one.ipynb"):
        kept = nbformat.read(tmp_path / "notebooks" / name, as_version=4)
        assert kept.cells[0].outputs[0].text == "1\n"
