"""Notebooks with an explorer panel, run and operated in JupyterLab, with screenshots."""

import re

import nbformat
import pytest
from playwright.sync_api import Locator, Page, expect

LOADED, RUN, ANSWER = 120_000, 480_000, 60_000  # ms at most, for a machine that is busy with something else
FAILED = '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.stderr"]'  # errors and warnings
ENDED = f"""() => {{
    const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].map(e => e.textContent.trim());
    return document.querySelector('{FAILED}') || prompts.every(text => /^\\[\\d+\\]:$/.test(text));
}}"""
PICTURE = ".jp-OutputArea .widget-html-content img"
CHANGED = f"before => (document.querySelector('{PICTURE}') || {{src: before}}).src !== before"

RESIZED = """() => {
    const rest = innerWidth - document.querySelector(".jp-NotebookPanel").getBoundingClientRect().right;
    return rest >= 0 && rest < 60;  // there is a narrow bar beside the notebook
}"""
CUT_OFF = """panel => {
    const right = one => one.getBoundingClientRect().right;
    const parts = [...panel.querySelectorAll("img, input, select, label, .slider-container, .widget-readout")];
    const out = parts.filter(one => right(one) > right(panel) + 1);
    if (right(panel) > right(panel.closest(".jp-OutputArea")) + 1) out.push(panel);
    return out.map(one => one.outerHTML.slice(0, 100));
}"""


def run_all(page: Page, lab, name: str) -> None:
    """Open a notebook and run all its cells, until all are finished or one has failed."""
    page.goto(f"{lab.url}/lab/tree/notebooks/{name}.ipynb?reset&token={lab.token}")
    idle = page.get_by_text("| Idle")  # of the status bar: the kernel
    idle.wait_for(timeout=LOADED)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(ENDED, timeout=RUN)
    idle.wait_for(timeout=ANSWER)


class Panel:
    """The explorer panel of a page."""

    def __init__(self, page: Page) -> None:
        self.page, self.box = page, page.locator(".jp-OutputArea .widget-vbox")
        self.message, self.picture = self.box.locator(".widget-html-content").first, page.locator(PICTURE)

    def source(self) -> str:
        return self.picture.get_attribute("src")

    def cut_off(self, width: int, height: int) -> list[str]:
        """Parts outside the panel in a window of this size, and the panel itself if it exceeds its cell."""
        self.page.set_viewport_size({"width": width, "height": height})
        self.page.wait_for_function(RESIZED, timeout=ANSWER)
        return self.box.evaluate(CUT_OFF)

    def change(self, *actions) -> None:
        """Actions that must each change the figure, without a message."""
        for action in actions:
            before = self.source()
            action()
            self.page.wait_for_function(CHANGED, arg=before, timeout=ANSWER)
            expect(self.message).to_have_text("")

    def refuse(self, action, why: str) -> None:
        """An action that must show a message and leave the figure unchanged."""
        before = self.source()
        action()
        expect(self.message).to_have_text(why, timeout=ANSWER)
        assert self.source() == before


def move(slider: Locator) -> None:
    """One step with the keyboard: to the right, or to the left at the right end."""
    last = slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax")
    slider.press("ArrowLeft" if last else "ArrowRight")


def choose_next(dropdown: Locator) -> None:
    dropdown.select_option(index=dropdown.evaluate("one => (one.selectedIndex + 1) % one.length"))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("00_start_here", "at least one modality must be available"),
        ("03_recovery", "at least one modality must be available"),
        ("05_missing_rate_tables", "select at least one method"),
    ],
)
def test_a_notebook_runs_and_its_panel_responds_to_all_controls(name, why, lab, page, complaints, screenshots):
    run_all(page, lab, name)
    cells = nbformat.read(lab.notebooks / f"{name}.ipynb", as_version=4).cells
    expect(page.locator(".jp-CodeCell")).to_have_count(sum(cell.cell_type == "code" for cell in cells))
    expect(page.locator(FAILED)).to_have_count(0)

    panel = Panel(page)
    expect(panel.box).to_have_count(1)
    expect(panel.picture).to_have_attribute("src", re.compile("^data:image/png;base64,"))
    expect(panel.picture).to_have_attribute("alt", re.compile(r"\w"))
    panel.box.screenshot(path=screenshots / f"{name}_1_panel.png")
    page.screenshot(path=screenshots / f"{name}_2_page.png")
    for slider in panel.box.get_by_role("slider").all():
        panel.change(lambda one=slider: move(one))
    for dropdown in panel.box.get_by_role("combobox").all():
        panel.change(lambda one=dropdown: choose_next(one))
    panel.box.screenshot(path=screenshots / f"{name}_3_moved.png")
    *others, last = [box for box in panel.box.get_by_role("checkbox").all() if box.is_checked()]
    panel.change(*(box.click for box in others))
    panel.refuse(last.click, why)
    panel.box.screenshot(path=screenshots / f"{name}_4_refused.png")
    panel.change(others[0].click)
    for size in ((1920, 1080), (1366, 768), (900, 700)):
        assert panel.cut_off(*size) == []
    panel.box.screenshot(path=screenshots / f"{name}_5_narrow.png")
    assert complaints() == []


def test_errors_are_detected(lab, page, complaints):
    cells = [
        "import ipywidgets\ntick = ipywidgets.Checkbox()\ntick.observe(lambda change: 1 / 0, 'value')\ntick",
        "from IPython.display import HTML\nHTML('<img src=\"http://127.0.0.1:1/none.png\">')",
        "nothing",
        "1",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, lab.notebooks / "wrong.ipynb")
    run_all(page, lab, "wrong")
    expect(page.locator(FAILED)).to_have_count(1)
    page.locator(".jp-OutputArea").get_by_role("checkbox").click()
    wanted = ("http://127.0.0.1:1/none.png", "ERR_", "NameError: name 'nothing'", "ZeroDivisionError: division by zero")
    for _ in range(ANSWER // 100):
        missing = [sign for sign in wanted if not any(sign in complaint for complaint in complaints())]
        if not missing:
            break
        page.wait_for_timeout(100)
    assert missing == []
