"""What README and the pages of docs/ say is so."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from imder_lib.data.load import PUBLISHED_SHA256
from imder_lib.data.mmsa import KNOWN
from imder_runs import cli
from imder_runs.notebook import check_parameters

ROOT = Path(__file__).resolve().parents[1]
PATHS = [ROOT / "README.md", *(ROOT / f"{name}/README.md" for name in ("pt", "data", "benchmarks"))]
PATHS += sorted((ROOT / "docs").glob("*.md"))
PAGES = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PATHS}
FENCE = re.compile(r"```python\n(.*?)```", re.DOTALL)
EXAMPLES = [(page, code) for page, text in PAGES.items() for code in FENCE.findall(text)]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([\w-]+):", MAKEFILE, flags=re.MULTILINE))
each_page = pytest.mark.parametrize("page", PAGES)


@pytest.mark.parametrize(("page", "code"), EXAMPLES, ids=[page for page, _ in EXAMPLES])
def test_examples_run(page, code, tmp_path):
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if page == "docs/library.md" and "mine.py" not in code:
        assert done.stdout.splitlines()[-1] == "torch.Size([2, 1]) torch.Size([2, 32, 16])"


def test_hashes_and_keys_are_those_of_the_library():
    rows = re.findall(r"\| `(\w+)` \| `data/\w+/aligned_50\.pkl` \| `(\w{64})` \|", PAGES["docs/mosi_mosei.md"])
    assert dict(rows) == PUBLISHED_SHA256
    rows = re.findall(r"^\| (`.*?) \|", PAGES["docs/your_data.md"], flags=re.MULTILINE)
    keys = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
    assert keys >= {"text", "audio", "vision", "regression_labels", "id"}
    assert keys <= KNOWN


def test_commands_and_options_exist():
    group = typer.main.get_command(cli.app)
    options = {name: {o for p in c.params for o in p.opts} | {"--help"} for name, c in group.commands.items()}
    added = re.compile(r'add_argument\(\s*"(--\w+)"')
    scripts = {f"benchmarks/{f.name}": {*added.findall(f.read_text())} for f in (ROOT / "benchmarks").glob("*.py")}
    named = set()
    for text in PAGES.values():
        for name, rest in re.findall(r"(?:\.venv/bin/|`)imder (\w+)([^`\n]*)", text):
            named.add(name)
            assert set(re.findall(r" (--?[a-z][\w-]*)", rest)) <= options[name], f"imder {name}{rest}"
        for script, rest in re.findall(r"python (benchmarks/\w+\.py)(.*)", text):
            assert set(re.findall(r" (--\w+)", rest)) <= scripts[script], f"{script}{rest}"
        for rest in re.findall(r"make bench ARGS=(.*)", text):
            assert set(re.findall(r"--\w+", rest.split("`")[0])) <= scripts["benchmarks/bench.py"] | {"--help"}, rest
        alone = set(re.findall(r"`(--[a-z][\w-]*)", text))
        assert alone <= set().union(*scripts.values(), *options.values())
        for path in re.findall(r"\b(?:benchmarks|notebooks|imder_lib)/[\w/]+\.(?:py|ipynb)", text):
            assert (ROOT / path).is_file(), path
        for notebook, rest in re.findall(r"^    \.venv/bin/imder run (\S+) \S+ (.*)$", text, flags=re.MULTILINE):
            check_parameters(ROOT / notebook, dict(pair.split("=") for pair in re.findall(r"-p (\S+)", rest)))
    assert named == set(options)


def test_make_targets_exist_and_help_lists_them():
    for text in PAGES.values():
        assert set(re.findall(r"`make ([\w-]+)", text)) <= TARGETS
    shown = [subprocess.run(["make", *goal], cwd=ROOT, capture_output=True, text=True) for goal in ([], ["help"])]
    assert shown[0].stdout == shown[1].stdout, "help is what make does if it is told nothing"
    assert set(re.findall(r"^make ([\w-]+) +\w", shown[1].stdout, flags=re.MULTILINE)) == TARGETS


@each_page
def test_linked_files_are_there(page):
    for link in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        path, _, anchor = link.partition("#")
        assert link.startswith("https://") or (path and (ROOT / page).parent.joinpath(path).is_file()), link
        assert not anchor or link.startswith("https://"), "link to a page, not into it"


@each_page
def test_lines_of_prose_are_short(page):
    prose = [x for x in FENCE.sub("", PAGES[page]).splitlines() if not x.startswith(("|", "![", "    "))]
    assert [x for x in prose if len(x) > 100] == []


def test_the_first_screen_holds_one_picture():
    (picture,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)", PAGES["README.md"])
    assert (ROOT / picture).stat().st_size < 200_000
    assert PAGES["README.md"].index("![") < PAGES["README.md"].index("\n## ")


def test_the_map_names_what_is_there():
    rows = re.findall(r"^\| .*\? \| `(\S+\.py)` \| (.*) \|$", PAGES["docs/library.md"], flags=re.MULTILINE)
    assert rows
    for file, names in rows:
        source = (ROOT / file).read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^(def|class) {name}\b|^{name}\b.* = ", source, flags=re.MULTILINE), f"{file}: {name}"
