"""A copy of the kit for students: python -m tools.handout [FOLDER]; by default build/handout.

It holds what is committed, but no solutions, no teacher's guide, no tests and no tools. Its notebooks have no outputs.
"""

import argparse
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import nbformat

from imder_lib.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = ("notebooks/solutions", "docs/teachers_guide.md", "tests", "tools", ".ci", ".github")


def hand_out(folder: Path, root: Path = ROOT) -> int:
    """Write the copy of the newest commit of ``root`` to a new folder; return the number of its files.

    Raises:
        UserError: the folder exists, or ``root`` is no git checkout.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already: delete it, or name a new folder")
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=root, capture_output=True)
    if archive.returncode:
        raise UserError(f"{root} is no git checkout, so it is not known which files belong to the kit")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        kept = [m for m in tar if not m.isdir() and not any(Path(m.name).is_relative_to(name) for name in LEFT_OUT)]
        tar.extractall(folder, kept, filter="data")
    for path in sorted((folder / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, path)
    return len(kept)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/handout"), help="a new one")
    out = parser.parse_args().folder
    try:
        print(f"{out}: {hand_out(out)} files")
    except UserError as error:
        sys.exit(str(error))
