"""Exercises have one source: the solution notebooks. python -m imder_lib.runs.exercises copies them into the course.

A solution notebook holds cells tagged ``exercise`` (a question, a stub) and after them cells tagged ``solution`` (an
answer that asserts its claim). The course notebook of the same name shows the ``exercise`` cells only.

"""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import nbformat
from IPython.utils.capture import capture_output

from imder_lib.errors import UserError
from imder_lib.runs.notebook import check_parameters
from imder_lib.runs.reproduce import NOTEBOOKS

SOLUTIONS = NOTEBOOKS / "solutions"


def tagged(notebook: nbformat.NotebookNode, tag: str) -> list[nbformat.NotebookNode]:
    """The cells of a notebook with a tag."""
    return [c for c in notebook.cells if tag in c.metadata.get("tags", [])]


def follow(path: str | Path, namespace: MutableMapping[str, Any], **parameters: Any) -> None:
    """Run a course notebook's code quietly in a namespace, so that its names are there; exercises are left out.

    Args:
        path: of the notebook, relative to the working folder.
        namespace: globals() of the notebook that follows.
        parameters: take the place of its own.

    Raises:
        UserError: a parameter that it does not have.
    """
    values = check_parameters(path, parameters)
    for cell in nbformat.read(path, as_version=4).cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code" and "exercise" not in tags:
            with capture_output():
                exec(compile(cell.source, f"{Path(path).name}, cell {cell.id}", "exec"), namespace)
        if "parameters" in tags:
            namespace.update(values)


def with_exercises(course: nbformat.NotebookNode, solutions: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The course notebook with the exercises of its solution notebook; outputs stay where the source is the same."""
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
    """Bring every course notebook up to date; names of those that changed."""
    changed = []
    for source in sorted(SOLUTIONS.glob("*.ipynb")):
        course = nbformat.read(NOTEBOOKS / source.name, as_version=4)
        new = with_exercises(course, nbformat.read(source, as_version=4))
        if new != course:
            nbformat.write(new, NOTEBOOKS / source.name)
            changed.append(source.name)
    return changed


if __name__ == "__main__":
    for name in copy_exercises():
        print(f"{name}: exercises copied")
