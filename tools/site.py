"""Build the course as a static book: python -m tools.site [OUT]. Nothing is executed or downloaded.

Sphinx reads copies of README, notebooks and docs in the same layout, so links between them stay valid. Each figure in
the outputs of a notebook becomes a file; the gallery shows its alt text as caption.
"""

import base64
import json
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from io import StringIO
from itertools import groupby
from pathlib import Path
from typing import Any

import nbformat
from sphinx.application import Sphinx
from sphinx.util.console import strip_escape_sequences
from sphinx.util.docutils import docutils_namespace

from imder_lib.errors import UserError
from imder_runs.reproduce import NOTEBOOKS

ROOT = NOTEBOOKS.parent
MARK = ".imder-site"  # empty file in each book; a folder without it is never replaced
MATHJAX = Path(str(files("sphinx-mathjax-offline"))) / "static/mathjax/tex-svg.js"
README = re.compile(r"(\]\((?:\.\./)*)README\.md")  # becomes the first page, index.html
LINK = re.compile(r"\]\(([^)#\s]+)")
PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")  # characters that markdown lets a backslash escape
CONFIG: dict[str, Any] = {
    "project": "The IMDer kit",
    "extensions": ["myst_nb", "sphinx.ext.mathjax"],
    "nb_execution_mode": "off",
    "nb_merge_streams": True,
    "nb_render_markdown_format": "myst",  # figures in outputs are directives
    "nb_ipywidgets_js": {},  # would be loaded from the network
    "myst_enable_extensions": ["amsmath", "dollarmath"],
    "myst_heading_anchors": 4,
    "smartquotes": False,
    "html_theme": "furo",
    "html_title": "The IMDer kit",
    "html_static_path": ["_static"],
    "html_css_files": ["site.css"],
    "mathjax_path": "tex-svg.js",  # SVG output needs no font files
    "html_show_search_summary": False,  # pages opened from disk cannot load others
    "html_copy_source": False,
    "html_show_copyright": False,
    "html_show_sphinx": False,
    "html_use_index": False,
}
STYLE = """
article img { background: #fff } article figure { margin: 2.5rem 0 } figcaption { text-align: left }
.cell_output { overflow-x: auto } .cell_output pre { max-height: 24rem }
table.dataframe { border: 0; border-collapse: collapse; margin: .5rem 0 }
table.dataframe :is(th, td) { border: 0; border-bottom: 1px solid var(--color-background-border); padding: .2rem .7rem }
"""


@dataclass(frozen=True)
class Figure:
    """A picture in the outputs of a notebook; the caption is its alt text."""

    name: str
    caption: str
    width: int | None  # displayed width; the picture may have more pixels
    notebook: str  # relative to the root
    title: str  # of the notebook, markdown


def _escaped(text: str) -> str:
    """Escape plain text for markdown."""
    return PUNCTUATION.sub(r"\\\1", text)


def _picture(kind: str, figure: Figure, body: str = "", **options: str) -> str:
    """A figure or image directive."""
    given = {"alt": json.dumps(figure.caption, ensure_ascii=False), "width": figure.width} | options
    lines = "".join(f":{name}: {value}\n" for name, value in given.items() if value)
    return f"```{{{kind}}} /figures/{figure.name}.png\n{lines}\n{body}\n```\n"


def _toctree(caption: str, *entries: str) -> str:
    """One section of the menu."""
    return "\n".join(("\n```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```\n"))


def _texts(path: Path) -> list[str]:
    """Markdown texts of a page."""
    if path.suffix == ".md":
        return [path.read_text(encoding="utf-8")]
    return [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown"]


def pages_and_files(root: Path) -> tuple[list[Path], list[Path]]:
    """README, notebooks, docs and the files they link to, relative to the root: ordered pages, and other files."""
    kinds = ("README.md", "notebooks/*.ipynb", "notebooks/solutions/*.ipynb", "docs/*.md")
    pages = [page for kind in kinds for page in sorted(root.glob(kind))]
    others: dict[Path, None] = {}
    for page in pages:  # grows: linked pages have links too
        for target in (target for text in _texts(page) for target in LINK.findall(text) if "://" not in target):
            path = (page.parent / target).resolve()
            if path.suffix in (".md", ".ipynb") and path.is_file() and path.is_relative_to(root):
                if path not in pages:
                    pages.append(path)
            elif path.is_file() and path.is_relative_to(root):
                others[path] = None
    return [p.relative_to(root) for p in pages], [p.relative_to(root) for p in others]


def _copy_notebook(path: Path, source: Path, name: Path) -> list[Figure]:
    """Write a notebook to the source folder, and the pictures in its outputs as files; return the pictures."""
    notebook = nbformat.read(path, as_version=4)
    figures: list[Figure] = []
    title = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = README.sub(r"\1index.md", cell.source)
            title = title or cell.source.partition("\n")[0].removeprefix("# ")
        for output in cell.get("outputs", []):
            if "image/png" not in output.get("data", {}):
                continue
            shown = output.metadata.get("image/png", {})
            caption = " ".join(shown.get("alt", "").split())
            if not caption:
                raise UserError(f"{name}: cell {cell.id} has a picture without an alt text")
            key = "-".join(("figure", *name.with_suffix("").parts[1:], str(len(figures) + 1))).replace("_", "-")
            figure = Figure(key, caption, shown.get("width"), str(name), title)
            (source / "figures" / f"{figure.name}.png").write_bytes(base64.b64decode(output.data["image/png"]))
            output.data = {"text/markdown": _picture("image", figure, name=figure.name)}
            figures.append(figure)
    nbformat.write(notebook, source / name)
    return figures


def prepare(root: Path, source: Path) -> None:
    """Write all input of Sphinx to a folder with the layout of the kit."""
    pages, others = pages_and_files(root)
    figures: list[Figure] = []
    (source / "figures").mkdir()
    for name in pages + others:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if name.suffix == ".ipynb":
            figures += _copy_notebook(root / name, source, name)
        elif name in pages:
            (source / name).write_text(README.sub(r"\1index.md", (root / name).read_text("utf-8")), "utf-8")
        else:
            shutil.copyfile(root / name, source / name)
    (source / "README.md").rename(source / "index.md")
    notebooks = [str(p) for p in pages if p.suffix == ".ipynb" and len(p.parts) == 2]
    solutions = [str(p) for p in pages if p.suffix == ".ipynb" and len(p.parts) == 3]
    docs = [str(p) for p in pages[1:] if p.suffix == ".md"]
    with (source / "index.md").open("a", encoding="utf-8") as index:
        index.write(_toctree("Course", "Start <self>", *notebooks, "notebooks/solutions", "gallery"))
        index.write(_toctree("Documents", *docs))
    listed = "\n".join(("```{toctree}", "", *(f"/{name}" for name in solutions), "```"))
    (source / "notebooks" / "solutions.md").write_text(f"# Solutions\n\n{listed}\n", "utf-8")
    (source / "gallery.md").write_text(gallery(figures), "utf-8")
    (source / "_static").mkdir()
    (source / "_static" / "site.css").write_text(STYLE, "utf-8")
    shutil.copyfile(MATHJAX, source / "_static" / MATHJAX.name)


def gallery(figures: list[Figure]) -> str:
    """Page with all figures, their captions and links to their places."""
    text = "# Gallery\n\nAll figures of the notebooks, from their last run.\n"
    for notebook, group in groupby(figures, key=lambda f: f.notebook):
        for k, f in enumerate(group):
            text += "" if k else f"\n## [{f.title}]({notebook})\n"
            where = f"[{f.title}]({notebook}#{f.name})"
            text += "\n" + _picture("figure", f, f"{_escaped(f.caption)}\n\n{where}")
    return text


def build_site(out: Path, root: Path = ROOT) -> None:
    """Build the book beside its place; it replaces an earlier one only if the build succeeds.

    Raises:
        UserError: ``out`` holds something else, a figure has no alt text, or Sphinx warned, for example of a dead link.
    """
    out = out.resolve()
    if out.exists() and not (out / MARK).is_file():
        raise UserError(f"{out} exists already and is no site of this command: delete it, or name another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        source, html = Path(folder, "source"), Path(folder, "html")
        source.mkdir()
        prepare(root, source)
        warnings = StringIO()
        trees = Path(folder, "trees")
        with docutils_namespace():  # allows a second build in one process
            Sphinx(source, None, html, trees, "html", CONFIG, status=None, warning=warnings).build()
        if found := strip_escape_sequences(warnings.getvalue()).replace(f"{source}/", ""):
            raise UserError(f"the site has errors:\n{found}")
        for name in (".buildinfo", "objects.inv"):
            (html / name).unlink(missing_ok=True)
        (html / MARK).touch()
        old = Path(folder, "old")  # goes with the folder
        if out.exists():
            out.rename(old)
        try:
            html.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise


if __name__ == "__main__":
    place = Path(sys.argv[1] if len(sys.argv) > 1 else "build/site")
    try:
        build_site(place)
    except UserError as error:
        sys.exit(str(error))
    print(f"open {place / 'index.html'}")
