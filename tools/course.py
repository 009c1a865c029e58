"""Execute the whole course and store its outputs: python -m tools.course [FOLDER]; an interrupted run is continued.

Exercises are written in the solution notebooks: cells tagged ``exercise`` (a question, a stub), then cells tagged
``solution`` (an answer that asserts its claim). First, the ``exercise`` cells are copied to the course notebooks. Then
all notebooks and solutions run in profile quick, in one folder, so that they share trained models. Finally, their
outputs are copied to the committed notebooks.
"""

import sys
from functools import partial
from pathlib import Path

import nbformat

from imder_lib.errors import UserError
from imder_lib.files import write_text
from imder_runs.notebook import run_notebook
from imder_runs.parallel_notebooks import notebook_threads, notebooks_at_once, run_jobs
from imder_runs.places import NOTEBOOKS
from imder_runs.progress import progress_shown, say

SOLUTIONS = NOTEBOOKS / "solutions"


def tagged(notebook: nbformat.NotebookNode, tag: str) -> list[nbformat.NotebookNode]:
    """The cells of a notebook with a tag."""
    return [c for c in notebook.cells if tag in c.metadata.get("tags", [])]


def with_exercises(course: nbformat.NotebookNode, solutions: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Copy the exercises of a solution notebook to its course notebook; unchanged cells keep their outputs."""
    cells, old = list(course.cells), {c.id: c for c in tagged(course, "exercise")}
    places = [i for i, c in enumerate(cells) if c.id in old]
    heads = [i for i, c in enumerate(cells) if c.cell_type == "markdown" and c.source.strip() == "## Exercises"]
    if len(heads) != 1:
        raise UserError(f"expected one cell '## Exercises' before the exercises, found {len(heads)}")
    new = []
    for cell in tagged(solutions, "exercise"):
        kept = old.get(cell.id)
        if kept is None or (kept.cell_type, kept.source) != (cell.cell_type, cell.source):
            kept = nbformat.from_dict(cell)
            if kept.cell_type == "code":
                kept.outputs, kept.execution_count = [], None
        new.append(kept)
    rest = [c for i, c in enumerate(cells) if i not in places]
    at = heads[0] + 1
    out = nbformat.from_dict(course)
    out.cells = rest[:at] + new + rest[at:]
    return out


def copy_exercises() -> list[str]:
    """Copy the exercises to all course notebooks; return the names of the changed ones."""
    changed = []
    for source in sorted(SOLUTIONS.glob("*.ipynb")):
        course = nbformat.read(NOTEBOOKS / source.name, as_version=4)
        new = with_exercises(course, nbformat.read(source, as_version=4))
        if new != course:
            write_text(NOTEBOOKS / source.name, nbformat.writes(new) + "\n")
            changed.append(source.name)
    return changed


def keep_outputs(executed: Path, source: Path) -> None:
    """Copy outputs by cell id; sources, parameters and metadata are unchanged."""
    done = {c.id: c for c in nbformat.read(executed, as_version=4).cells}
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.id in done:
            cell.outputs, cell.execution_count = done[cell.id].outputs, done[cell.id].execution_count
            for output in cell.outputs:
                kept = {k: v for k, v in output.get("metadata", {}).items() if k == "image/png"}  # its alt text
                if "metadata" in output:
                    output.metadata = nbformat.from_dict(kept)
    write_text(source, nbformat.writes(notebook) + "\n")


def run_course(folder: Path, profile: str = "quick") -> None:
    """Run all notebooks and solutions and store their outputs.

    Args:
        folder: output folder of the notebooks; FOLDER/executed holds the executed ones.
        profile: profile of all runs.
    """
    for name in copy_exercises():
        print(f"{name}: exercises copied")

    threads = notebook_threads()

    def execute(source: Path, executed: Path) -> None:
        part = executed.with_name(f".{executed.name}")
        run_notebook(source, part, {"profile": profile, "out": str(folder.resolve())}, shown=False, threads=threads)
        keep_outputs(part, source)
        part.touch()  # newer than the source, which was just written
        part.rename(executed)  # last: a notebook that stands there is not run again

    for place in (NOTEBOOKS, SOLUTIONS):  # a solution repeats its notebook's code: never both at once
        jobs = {}
        for source in sorted(place.glob("*.ipynb")):
            executed = folder / "executed" / source.relative_to(NOTEBOOKS)
            changed = max(path.stat().st_mtime for path in (source, NOTEBOOKS / source.name))
            if not executed.exists() or executed.stat().st_mtime < changed:
                jobs[str(source.relative_to(NOTEBOOKS))] = partial(execute, source, executed)
        parts = [(folder / "executed" / name).with_name(f".{Path(name).name}") for name in jobs]
        with progress_shown(parts, folder / "models"):
            for name, seconds in run_jobs(jobs, notebooks_at_once(threads)):
                say(f"{name}: {seconds:.0f} s")


if __name__ == "__main__":
    run_course(Path(sys.argv[1] if len(sys.argv) > 1 else "results/course"))
