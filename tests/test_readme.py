"""Claims of the README are true: examples, hashes, commands, links."""

import re
import subprocess
import sys
from pathlib import Path

from imder_lib import cli
from imder_lib.data.load import PUBLISHED_SHA256
from imder_lib.data.mmsa import KNOWN
from imder_lib.runs.notebook import check_parameters

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_library_example_runs(tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "torch.Size([2, 1]) torch.Size([2, 32, 16])"


def test_hashes_and_keys_are_those_of_the_library():
    rows = dict(re.findall(r"\| `(\w+)` \| `data/\w+/aligned_50\.pkl` \| `(\w{64})` \|", README))
    assert rows == PUBLISHED_SHA256
    schema = README.split("## Your own data")[1].split("##")[0]
    keys = {
        key for row in re.findall(r"^\| (`.*?) \|", schema, flags=re.MULTILINE) for key in re.findall(r"`(\w+)`", row)
    }
    assert keys >= {"text", "audio", "vision", "regression_labels", "id"}
    assert keys <= KNOWN


def test_commands_exist():
    commands = {c.name or c.callback.__name__ for c in cli.app.registered_commands}
    assert set(re.findall(r"^    \.venv/bin/imder (\w+)", README, flags=re.MULTILINE)) == commands
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(re.findall(r"`make ([\w-]+)`", README)) <= set(targets)
    for notebook, rest in re.findall(r"^    \.venv/bin/imder run (\S+) \S+ (.*)$", README, flags=re.MULTILINE):
        check_parameters(ROOT / notebook, dict(pair.split("=") for pair in re.findall(r"-p (\S+)", rest)))


def test_linked_files_exist():
    links = re.findall(r"\]\(([^)]+)\)", README)
    for link in links:
        assert link.startswith(("https://", "#")) or (ROOT / link).is_file(), link
    assert any(link.endswith(".png") and (ROOT / link).stat().st_size < 200_000 for link in links)
