"""A copy of the kit for students: python -m tools.handout [FOLDER]; by default build/handout.

It holds what is committed, but no solutions, no teacher's guide, no tests and no tools, and no links, make targets and
hooks that need them. Its notebooks have no outputs.
"""

import argparse
import io
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import nbformat

from imder_lib.errors import UserError
from imder_lib.files import written_whole

ROOT = Path(__file__).resolve().parents[1]
LEFT_OUT = ("notebooks/solutions", "docs/teachers_guide.md", "tests", "tools", ".ci", ".github")
NEEDY = re.compile(r"pytest|-m tools")  # in a make target or a hook: it needs what is left out
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)[^)]*\)")
NOTE = "\n\nThis is a copy for students, without the solutions, the teacher's guide and the tests: targets such\nas "
NOTE += "`make test` and `make site` are not in it. `make help` lists those that are.\n"


def left_out(name: str | Path) -> bool:
    """Whether a path of the kit is not in the copy."""
    return any(Path(name).is_relative_to(part) for part in LEFT_OUT)


def without_links(text: str, place: Path) -> str:
    """Markdown of a page in the folder ``place`` of the kit; links to what is left out become plain text."""
    return LINK.sub(lambda link: link[1] if left_out(os.path.normpath(place / link[2])) else link[0], text)


def without_needy(text: str, separator: str) -> str:
    """A Makefile or the hooks without the parts that need what is left out, and without the targets' names."""
    parts = text.split(separator)
    kept = [part for part in parts if not NEEDY.search(part)]
    gone = {name for part in parts if part not in kept for name in re.findall(r"^[\w-]+(?=:)", part, re.MULTILINE)}
    names = lambda line: " ".join(word for word in line[0].split(" ") if word not in gone)  # noqa: E731
    return re.sub(r"^\.PHONY:.*$", names, separator.join(kept), flags=re.MULTILINE)


def hand_out(folder: Path, root: Path = ROOT) -> int:
    """Write the copy of the newest commit of ``root`` to a new folder; return the number of its files.

    Raises:
        UserError: the folder exists, or ``root`` is no git checkout.
    """
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=root, capture_output=True)
    if archive.returncode:
        raise UserError(f"{root} is no git checkout, so it is not known which files belong to the kit")
    with written_whole(folder, new=True) as part, tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        kept = [m for m in tar if not m.isdir() and not left_out(m.name)]
        tar.extractall(part, kept, filter="data")
        for path in sorted((part / "notebooks").glob("*.ipynb")):
            notebook = nbformat.read(path, as_version=4)
            for cell in notebook.cells:
                if cell.cell_type == "code":
                    cell.outputs, cell.execution_count = [], None
                else:
                    cell.source = without_links(cell.source, Path("notebooks"))
            nbformat.write(notebook, path)
        changes = {path: lambda text, place=path.parent: without_links(text, place.relative_to(part))
                   for path in part.rglob("*.md")}  # fmt: skip
        changes[part / "Makefile"] = lambda text: without_needy(text, "\n\n")
        changes[part / ".pre-commit-config.yaml"] = lambda text: without_needy(text, "      - id: ")
        for path, change in changes.items():
            path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
        for page in filter(Path.exists, (part / "README.md", part / "docs/running.md", part / "docs/reliability.md")):
            page.write_text(page.read_text(encoding="utf-8").replace("\n", NOTE, 1), encoding="utf-8")
    return len(kept)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("build/handout"), help="a new one")
    out = parser.parse_args().folder
    try:
        print(f"{out}: {hand_out(out)} files")
    except UserError as error:
        sys.exit(str(error))
