"""Check the form of committed notebooks: python -m tools.form NOTEBOOK...; one line per problem, exit code 1."""

import sys
from itertools import pairwise
from pathlib import Path

import nbformat

from imder_lib.errors import UserError
from imder_runs.notebook import notebook_parameters

PARTS = ("You will know", "**Time**", "Predict", "## Exercises", "## Recap", "What could be wrong", "**References.**")
CELL_LINES = 15
SIZE = 2_000_000  # bytes


def form_problems(path: str | Path) -> list[str]:
    """Problems in the form of a committed notebook.

    Checks the title and the parts of the text, the parameters cell with help texts, the length of cells, the kernel
    name, outputs of one complete run without errors, alt texts of pictures, and a size below 2 MB.
    """
    path = Path(path)
    try:
        parameters = notebook_parameters(path)
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except UserError as error:
        return [str(error)]
    except nbformat.ValidationError as error:
        return [f"{path} is no valid notebook: {error!s:.120}"]
    code = [c for c in notebook.cells if c.cell_type == "code" and c.source.strip()]
    text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
    found = [f"parameter {p.name} has no # help" for p in parameters.values() if not p.help]
    if not text.startswith(f"# {path.stem[:2]} "):
        found.append(f"the title does not start with '# {path.stem[:2]} '")
    found += [f"the text lacks {part!r}" for part in PARTS if part not in text]
    found += [f"cell {c.id} is longer than {CELL_LINES} lines" for c in code if c.source.count("\n") >= CELL_LINES]
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("the kernel is not python3")
    counts = [c.execution_count or 0 for c in code]
    if not any(c.outputs for c in code) or any(b <= a for a, b in pairwise([0, *counts])):
        found.append("outputs are missing, or not of one run from top to bottom: run the whole notebook")
    found += [f"cell {c.id} ends in an error" for c in code if any(o.output_type == "error" for o in c.outputs)]
    for cell in code:
        pictures = [o for o in cell.outputs if "image/png" in o.get("data", {})]
        if not all(o.metadata.get("image/png", {}).get("alt") for o in pictures):
            found.append(f"cell {cell.id} shows a picture without alt text: show it by run.save_figure")
    if path.stat().st_size >= SIZE:
        found.append(f"{path.stat().st_size} bytes, expected fewer than {SIZE}")
    return [f"{path}: {problem}" for problem in found]


if __name__ == "__main__":
    problems = [problem for name in sys.argv[1:] for problem in form_problems(name)]
    print(*problems, sep="\n", end="\n" if problems else "")
    sys.exit(bool(problems))
