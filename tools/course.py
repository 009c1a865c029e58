"""Execute the whole course and keep its outputs: python -m tools.course [FOLDER]; it goes on where it was.

First the exercises are copied from the solution notebooks; then each notebook and each solution runs in profile quick,
all in one folder, so that what one has trained the next one reads; then the outputs go into the committed notebooks.
"""

import sys
import time
from pathlib import Path

import nbformat

from imder_lib.runs.exercises import SOLUTIONS, copy_exercises
from imder_lib.runs.notebook import run_notebook
from imder_lib.runs.reproduce import NOTEBOOKS


def keep_outputs(executed: Path, source: Path) -> None:
    """Copy outputs cell by cell (by id); sources, parameters and metadata stay as committed."""
    done = {c.id: c for c in nbformat.read(executed, as_version=4).cells}
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.id in done:
            cell.outputs, cell.execution_count = done[cell.id].outputs, done[cell.id].execution_count
            for output in cell.outputs:
                kept = {k: v for k, v in output.get("metadata", {}).items() if k == "image/png"}  # its alt text
                if "metadata" in output:
                    output.metadata = nbformat.from_dict(kept)
    nbformat.write(notebook, source)


def run_course(folder: Path, profile: str = "quick") -> None:
    """Run every notebook and every solution in ``folder`` and keep their outputs.

    Args:
        folder: of everything that the notebooks write; FOLDER/executed holds the executed ones.
        profile: of all of them.
    """
    for name in copy_exercises():
        print(f"{name}: exercises copied")
    for source in (*sorted(NOTEBOOKS.glob("*.ipynb")), *sorted(SOLUTIONS.glob("*.ipynb"))):
        executed, started = folder / "executed" / source.relative_to(NOTEBOOKS), time.perf_counter()
        if not executed.exists() or executed.stat().st_mtime < source.stat().st_mtime:
            part = executed.with_name(f".{executed.name}")
            run_notebook(source, part, {"profile": profile, "out": str(folder.resolve())})
            part.rename(executed)
            keep_outputs(executed, source)
            executed.touch()  # younger than the source that now holds its outputs
        print(f"{source.relative_to(NOTEBOOKS)}: {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    run_course(Path(sys.argv[1] if len(sys.argv) > 1 else "results/course"))
