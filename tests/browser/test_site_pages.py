"""Pages of the static book in Chromium, opened from disk."""

from pathlib import Path

import pytest

from tools.site import build_site

pytestmark = pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of the next Sphinx, in myst_parser


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("kit") / "site"
    build_site(out)
    return out


@pytest.fixture(scope="module")
def tab(site, browser):
    """A browser page and its errors: messages, and requests that failed or left the folder of the site."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    wrong: list[str] = []
    page.on("console", lambda m: wrong.append(f"{page.url}: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(f"{page.url}: {error}"))
    page.on("requestfailed", lambda request: wrong.append(f"{page.url}: {request.url} failed"))
    own = (site.as_uri(), "data:")
    page.on("request", lambda r: None if r.url.startswith(own) else wrong.append(f"{page.url}: asks {r.url}"))
    yield page, wrong
    page.close()


@pytest.fixture
def open_page(tab, site):
    """name -> the open page; fails at the end if there were errors."""
    page, wrong = tab

    def go(name: str):
        page.goto((site / name).as_uri(), wait_until="networkidle")
        return page

    yield go
    found = wrong[:]
    wrong.clear()
    assert found == []


def test_all_pages_open_without_errors(open_page, site):
    for path in sorted(site.rglob("*.html")):
        page = open_page(str(path.relative_to(site)))
        assert page.locator("input[name=q]").is_visible(), path
        broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
        assert page.evaluate(broken) == [], path


def test_formulas_are_rendered(open_page):
    page = open_page("notebooks/02_score_diffusion.html")
    page.wait_for_selector("mjx-container svg")
    assert page.locator("mjx-container").count() == page.locator(".math").count() > 10
    assert page.locator("mjx-merror").count() == 0


def test_search_finds_the_pages_about_the_score(open_page):
    page = open_page("index.html")
    page.fill("input[name=q]", "score")
    page.press("input[name=q]", "Enter")
    page.get_by_text("Search finished").wait_for()
    results = page.locator("#search-results li a")
    titles = results.all_inner_texts()
    assert "02 Score diffusion" in titles and len(titles) > 3
    results.nth(titles.index("02 Score diffusion")).click()
    page.wait_for_url("**/02_score_diffusion.html*")


@pytest.mark.parametrize("name", ["index", "notebooks/03_recovery", "gallery"])
def test_pages_fit_wide_and_narrow_screens(open_page, screenshots, name):
    page = open_page(f"{name}.html")
    for width in (1280, 400):
        page.set_viewport_size({"width": width, "height": 900})
        page.screenshot(path=screenshots / f"site-{Path(name).name}-{width}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 1280, "height": 900})
