"""The static book: links, pictures, gallery and search, without a network."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from bs4 import BeautifulSoup

from imder_lib.errors import UserError
from tools.site import MARK, ROOT, build_site

DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEANl9ngAAAAABJRU5ErkJggg=="
pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of the next Sphinx, in myst_parser
CAPTIONS = ('Five % of *x*, a_b_c and $5: `code`, [not](a link) "said" \\ <b>it\'s</b> | so.', "Another one")


def read_pages(site: Path) -> dict[Path, BeautifulSoup]:
    return {path: BeautifulSoup(path.read_text("utf-8"), "html.parser") for path in site.rglob("*.html")}


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The site of the kit, built without warnings of Sphinx."""
    out = tmp_path_factory.mktemp("kit") / "site"
    build_site(out)
    return out


@pytest.fixture(scope="session")
def pages(site):
    return read_pages(site)


def write_course(root: Path, text: str = "", captions: tuple[str, ...] = CAPTIONS) -> Path:
    """A kit with one notebook that shows pictures, its solutions, and a README that ends with the text."""
    outputs = [
        nbformat.v4.new_output("display_data", {"image/png": DOT}, metadata={"image/png": {"alt": c, "width": 40}})
        for c in captions
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    notebook.cells = [
        nbformat.v4.new_markdown_cell("# 00 One *and* only\n\nSee the [README](../README.md): $\\sigma_{x}$."),
        nbformat.v4.new_code_cell("draw()", outputs=outputs),
    ]
    for folder in ("notebooks", "notebooks/solutions"):
        (root / folder).mkdir(parents=True)
    nbformat.write(notebook, root / "notebooks/00_one.ipynb")
    notebook.cells = [nbformat.v4.new_markdown_cell("# 00 One: solutions\n\n[Back](../00_one.ipynb)")]
    nbformat.write(notebook, root / "notebooks/solutions/00_one.ipynb")
    (root / "README.md").write_text(f"# Tiny\n\n## Part\n\n[notebooks](notebooks/00_one.ipynb) {text}", "utf-8")
    return root


def test_the_whole_course_is_in_it(site, pages):
    notebooks = [p.relative_to(ROOT).with_suffix(".html") for p in ROOT.glob("notebooks/**/[0-9]*.ipynb")]
    docs = [p.relative_to(ROOT).with_suffix(".html") for p in ROOT.glob("docs/*.md")]
    assert {site / p for p in notebooks + docs} <= pages.keys()
    menu = [a["href"] for a in pages[site / "index.html"].select(".sidebar-tree a")]
    order = [str(p) for p in sorted(p for p in notebooks if len(p.parts) == 2)]
    assert menu[: len(order) + 1] == ["#", *order]
    assert {"gallery.html", *map(str, docs)} <= set(menu)


def dead_links(pages: dict[Path, BeautifulSoup]) -> list[str]:
    """Links and sources within the site without their file, or without the id in it that they name."""
    ids = {path: {t["id"] for t in page.find_all(id=True)} for path, page in pages.items()}
    found = []
    for path, page in pages.items():
        for tag in page.find_all(lambda t: t.get("href") or t.get("src")):
            url = tag.get("href") or tag["src"]
            parts = urlsplit(url)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in ids[target]):
                found.append(f"{path.name}: {url}")
    return found


def test_links_and_pictures_exist(pages):
    assert dead_links(pages) == []


def test_nothing_is_loaded_from_the_network(site, pages):
    tags = [tag for page in pages.values() for tag in page.select("script[src], link[href], img[src], iframe[src]")]
    loaded = [tag.get("src") or tag["href"] for tag in tags]
    loaded += [
        url for css in site.rglob("*.css") for url in re.findall(r"(?:url\(|@import )([^)\s]+)", css.read_text())
    ]
    assert len(loaded) > 100
    assert [url for url in loaded if urlsplit(url.strip("'\"")).scheme not in ("", "data")] == []


def test_every_picture_has_an_alt_text(site, pages):
    pictures = [(path.name, img) for path, page in pages.items() for img in page.find_all("img")]
    assert pictures
    assert [(name, img["src"]) for name, img in pictures if not img.get("alt", "").strip()] == []


def test_the_gallery_holds_every_figure(site, pages):
    outputs = [
        output
        for kind in ("notebooks/*.ipynb", "notebooks/solutions/*.ipynb")
        for path in sorted(ROOT.glob(kind))
        for cell in nbformat.read(path, as_version=4).cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    figures = pages[site / "gallery.html"].find_all("figure")
    assert [f.img["alt"].split() for f in figures] == [o.metadata["image/png"]["alt"].split() for o in outputs]


def test_search_finds_a_word_of_a_notebook(site):
    index = (site / "searchindex.js").read_text("utf-8")
    index = json.loads(index.removeprefix("Search.setIndex(").removesuffix(")"))
    found = index["terms"]["tweedi"]  # the stem of Tweedie; one page is a number, several are a list
    names = [index["docnames"][k] for k in (found if isinstance(found, list) else [found])]
    assert "notebooks/02_score_diffusion" in names


def test_figures_have_alt_texts_captions_and_links(tmp_path):
    site = tmp_path / "site"
    build_site(site, write_course(tmp_path / "kit"))
    pages = read_pages(site)
    assert dead_links(pages) == []
    notebook = pages[site / "notebooks/00_one.html"]
    shown = notebook.select(".cell_output img")
    assert tuple(img["alt"] for img in shown) == CAPTIONS
    assert (shown[0]["id"], shown[0]["width"]) == ("figure-00-one-1", "40")
    assert notebook.find("a", string="README")["href"] == "../index.html"
    figures = pages[site / "gallery.html"].find_all("figure")
    assert tuple(f.img["alt"] for f in figures) == CAPTIONS
    assert tuple(f.select_one(".caption-text").get_text() for f in figures) == CAPTIONS
    links = [f.select_one(".legend a") for f in figures]
    assert [a["href"] for a in links] == [f"notebooks/00_one.html#{img['id']}" for img in shown]
    assert links[0].get_text() == "00 One and only"


def test_a_build_replaces_only_an_earlier_site(tmp_path):
    kit, site = write_course(tmp_path / "kit", "[part](#part)"), tmp_path / "site"
    build_site(site, kit)
    (site / "old.html").write_text("")
    build_site(site, kit)
    assert not (site / "old.html").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kit", "site"]  # nothing is left beside it
    (kit / "searchindex.js").write_text("")  # of another book
    with pytest.raises(UserError, match="is no site"):
        build_site(kit, kit)
    assert (kit / "README.md").is_file()


def test_an_earlier_site_outlives_a_failure_at_the_end(tmp_path, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    for name in (MARK, "old.html"):
        (site / name).touch()
    monkeypatch.setattr("tools.site.Sphinx", lambda source, _, html, *__, **___: SimpleNamespace(build=html.mkdir))
    monkeypatch.setattr(Path, "touch", lambda path: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        build_site(site, write_course(tmp_path / "kit"))
    assert (site / "old.html").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kit", "site"]


@pytest.mark.parametrize(
    ("text", "captions", "message"),
    [
        ("[absent](docs/absent.md)", CAPTIONS, "index.md:5: WARNING: .*docs/absent.md"),
        ("[absent](#absent)", CAPTIONS, "index.md:5: WARNING: .*absent"),
        ("![absent](docs/absent.gif)", CAPTIONS, "docs/absent.gif"),
        ("", ("fine", " "), "notebooks/00_one.ipynb: cell .* has a picture without an alt text"),
    ],
)
def test_errors_stop_the_build(tmp_path, text, captions, message):
    with pytest.raises(UserError, match=message):
        build_site(tmp_path / "site", write_course(tmp_path / "kit", text, captions))
    assert not (tmp_path / "site").exists()
