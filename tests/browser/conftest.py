"""JupyterLab on loopback, offline, with copies of the notebooks, and a headless Chromium."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

import nbformat
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         "--disable-component-update", "--disable-sync")  # fmt: skip
CONFIG = {
    "LabApp": {
        "news_url": None,
        "check_for_updates_class": "jupyterlab.handlers.announcements.NeverCheckForUpdate",
        "extension_manager": "readonly",
    },
    "ServerApp": {"open_browser": False, "allow_root": True, "ip": "127.0.0.1", "port_retries": 0},
}
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # all cells are in the page, visible or not
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
RAISED = re.compile(r'"msg_type": ?"error".*"ename": ?"(.*?)", ?"evalue": ?"(.*?)"')  # by a cell or a widget's callback
TROUBLE = ("[E ", "[C ", "ERROR", "Traceback")


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab: address, token, notebooks, and log file of server and kernels."""

    url: str
    token: str
    notebooks: Path
    log: Path

    def call(self, path: str, method: str = "GET") -> str:
        request = Request(self.url + path, method=method, headers={"Authorization": f"token {self.token}"})
        with urlopen(request, timeout=60) as answer:
            return answer.read().decode()

    def add(self, source: Path) -> None:
        """Add a copy of a notebook without outputs, whose default parameters give a fast run in its own folder."""
        notebook = nbformat.read(source, as_version=4)
        for cell in (c for c in notebook.cells if c.cell_type == "code"):
            cell.outputs, cell.execution_count = [], None
        (parameters,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
        out = self.notebooks.parent / "results"
        for old, new in (('profile: str = "quick"', "smoke"), ('out: str = "../results/notebooks"', str(out))):
            assert old in parameters.source, f"{source.name} has no line {old}"
            parameters.source = parameters.source.replace(old, f"{old.partition(' =')[0]} = {new!r}")
        nbformat.write(notebook, self.notebooks / source.name)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", default=str(ROOT / "results" / "browser"), help="folder of the screenshots")


@pytest.fixture(scope="session")
def screenshots(pytestconfig: pytest.Config) -> Path:
    folder = Path(pytestconfig.getoption("screenshots")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab for all tests; it does not use files of the user."""
    base = tmp_path_factory.mktemp("lab")
    tree, config = base / "tree", base / "config"
    for name, values in SETTINGS.items():
        path = config / "lab" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    (config / "jupyter_server_config.json").write_text(json.dumps(CONFIG))
    (tree / "notebooks").mkdir(parents=True)
    (tree / "docs").symlink_to(ROOT / "docs")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lab = Lab(f"http://127.0.0.1:{port}", secrets.token_hex(), tree / "notebooks", base / "log.txt")
    for path in (ROOT / "notebooks").glob("0[035]_*.ipynb"):
        lab.add(path)
    folders = ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")
    own = {k: str(base / k.lower()) for k in folders} | {"JUPYTER_TOKEN": lab.token}
    own |= {"JUPYTER_CONFIG_DIR": str(config), "JUPYTERLAB_SETTINGS_DIR": str(config / "lab")}
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.port={port}", f"--ServerApp.root_dir={tree}"]
    with lab.log.open("w") as log:
        environment = {k: v for k, v in os.environ.items() if k != "MPLBACKEND"} | own
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_until_served(lab, server)
        yield lab
    finally:
        server.terminate()  # the server ends its kernels first
        try:
            server.wait(timeout=60)
        finally:
            server.kill()


def wait_until_served(lab: Lab, server: subprocess.Popen, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while True:
        try:
            lab.call("/api")
            return
        except OSError:
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"JupyterLab does not start:\n{lab.log.read_text()}") from None
            time.sleep(0.1)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if path is None:
        raise RuntimeError("no browser found: install Debian's package chromium, or Google Chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(lab: Lab, browser: Browser) -> Iterator[Page]:
    """An empty page; its kernels are closed with it."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    yield page
    page.close()
    for kernel in json.loads(lab.call("/api/kernels")):
        lab.call(f"/api/kernels/{kernel['id']}", "DELETE")


@pytest.fixture
def complaints(lab: Lab, page: Page) -> Callable[[], list[str]]:
    """Errors of page, kernels and server since the test began, and requests to other hosts."""
    seen, start = [], lab.log.stat().st_size

    def receive(data: str | bytes) -> None:
        text = data if isinstance(data, str) else data.decode(errors="replace")
        seen.extend(": ".join(error) for error in RAISED.findall(text))

    page.on("websocket", lambda socket: socket.on("framereceived", receive))
    page.on("console", lambda message: seen.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: seen.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith((f"{lab.url}/", "data:", "blob:")) else seen.append(r.url))

    def so_far() -> list[str]:
        log = lab.log.read_bytes()[start:].decode(errors="replace").splitlines()
        return seen + [line for line in log if any(sign in line for sign in TROUBLE)]

    return so_far
