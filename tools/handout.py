"""A copy of the kit for students: python -m tools.handout [FOLDER]; by default build/handout.

It holds the committed files, but no solutions, no teacher's guide and no tests. Its notebooks have no outputs.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

from imder_lib.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = ("notebooks/solutions/", "docs/teachers_guide.md", "tests/", "tools/", ".ci/", ".github/")


def hand_out(folder: Path, root: Path = ROOT) -> int:
    """Write the copy of the git checkout ``root`` to a new folder; return the number of its files.

    Raises:
        UserError: the folder exists, or ``root`` is no git checkout.
    """
    if folder.exists():
        raise UserError(f"{folder} exists already: delete it, or name a new folder")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True)
    if listed.returncode:
        raise UserError(f"{root} is no git checkout, so it is not known which files belong to the kit")
    names = [n for n in listed.stdout.split("\0") if n and not n.startswith(LEFT_OUT)]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, folder / name)
    for path in sorted((folder / "notebooks").glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, path)
    return len(names)


if __name__ == "__main__":
    try:
        out = Path(sys.argv[1] if len(sys.argv) > 1 else "build/handout")
        print(f"{out}: {hand_out(out)} files")
    except UserError as error:
        sys.exit(str(error))
