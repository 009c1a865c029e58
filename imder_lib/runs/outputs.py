"""Put the outputs of an executed run into the committed notebooks: python -m imder_lib.runs.outputs RUN_FOLDER."""

import sys
from pathlib import Path

import nbformat

from imder_lib.runs.reproduce import NOTEBOOKS


def keep_outputs(executed: Path, source: Path) -> None:
    """Copy outputs cell by cell (by id); sources, parameters and metadata stay as committed."""
    done = {c.id: c for c in nbformat.read(executed, as_version=4).cells}
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.id in done:
            cell.outputs, cell.execution_count = done[cell.id].outputs, done[cell.id].execution_count
            for output in cell.outputs:
                output.get("metadata", {}).clear()
    nbformat.write(notebook, source)


if __name__ == "__main__":
    for path in sorted((Path(sys.argv[1]) / "notebooks").glob("*.ipynb")):
        keep_outputs(path, NOTEBOOKS / path.name)
        print(path.name)
