"""The copy of the kit for students."""

import re
import subprocess
from pathlib import Path

import nbformat
import pytest

from imder_lib.errors import UserError
from tools.handout import ROOT, hand_out, without_links

KEPT = ("README.md", "notebooks/00_a.ipynb", "imder_lib/a.py", "Makefile", ".pre-commit-config.yaml")
LEFT = ("notebooks/solutions/00_a.ipynb", "docs/teachers_guide.md", "tests/test_a.py")


def write_kit(root):
    """A git checkout with some files, one of them not committed."""
    cell = nbformat.v4.new_code_cell("1", execution_count=1, outputs=[nbformat.v4.new_output("stream", text="1\n")])
    for name in (*KEPT, *LEFT, "data/private.pkl"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(nbformat.writes(nbformat.v4.new_notebook(cells=[cell])))
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    subprocess.run(["git", "add", *KEPT, *LEFT], cwd=root, check=True)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, "commit", "--quiet", "--message", "a"], cwd=root, check=True)
    return root


def test_it_holds_committed_files_without_answers(tmp_path):
    root = write_kit(tmp_path / "kit")
    (root / "imder_lib/a.py").write_text("an answer that is not committed")
    out = tmp_path / "out"
    assert hand_out(out, root) == len(KEPT)
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()) == sorted(KEPT)
    copied = nbformat.read(out / KEPT[1], as_version=4).cells[0]
    assert (copied.source, copied.outputs, copied.execution_count) == ("1", [], None)
    assert "answer" not in (out / "imder_lib/a.py").read_text()
    assert nbformat.read(root / KEPT[1], as_version=4).cells[0].outputs  # the original is unchanged
    with pytest.raises(UserError, match="exists already"):
        hand_out(out, root)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    folder = tmp_path_factory.mktemp("copy") / "kit"
    hand_out(folder)
    return folder


def test_links_of_the_copy_resolve(copy):
    texts = [(path.parent, path.read_text("utf-8")) for path in copy.rglob("*.md")]
    for path in copy.glob("notebooks/*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        texts += [(path.parent, cell.source) for cell in cells if cell.cell_type == "markdown"]
    links = [
        (place, link) for place, text in texts for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link
    ]
    assert len(links) > 30
    assert [link for place, link in links if not (place / link).exists()] == []


def test_targets_and_hooks_of_the_copy_need_nothing_that_is_left_out(copy):
    text, kept = ((folder / "Makefile").read_text("utf-8") for folder in (ROOT, copy))
    targets, left = (set(re.findall(r"^([\w-]+):", x, flags=re.MULTILINE)) for x in (text, kept))
    assert targets - left == {"test", "fuzz", "test-browser", "notebooks", "site"}
    assert left == set(re.search(r"^\.PHONY: (.*)$", kept, flags=re.MULTILINE)[1].split())
    hooks = (copy / ".pre-commit-config.yaml").read_text("utf-8")
    assert "ruff-format" in hooks
    assert not re.search("pytest|tools|tests", kept + hooks.partition("repos:")[2])


def test_only_links_to_what_is_left_out_become_text():
    text = "[a](solutions/00_a.ipynb) [b](../docs/teachers_guide.md#c) [c](01_b.ipynb) `f[0](x)` [d](https://a.b/tests)"
    assert without_links(text, Path("notebooks")) == f"a b {text[text.index('[c]') :]}"


def test_an_interrupted_copy_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tools.handout.without_links", interrupted)
    with pytest.raises(KeyboardInterrupt):
        hand_out(tmp_path / "out", write_kit(tmp_path / "kit"))
    assert [p.name for p in tmp_path.iterdir()] == ["kit"]


def test_it_needs_a_git_checkout(tmp_path):
    with pytest.raises(UserError, match="no git checkout"):
        hand_out(tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()
