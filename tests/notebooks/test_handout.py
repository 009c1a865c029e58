"""The copy of the kit for students."""

import subprocess

import nbformat
import pytest

from imder_lib.errors import UserError
from tools.handout import hand_out

KEPT = ("README.md", "notebooks/00_a.ipynb", "imder_lib/a.py")
LEFT = ("notebooks/solutions/00_a.ipynb", "docs/teachers_guide.md", "tests/test_a.py")


def test_it_holds_committed_files_without_answers(tmp_path):
    root = tmp_path / "kit"
    cell = nbformat.v4.new_code_cell("1", execution_count=1, outputs=[nbformat.v4.new_output("stream", text="1\n")])
    for name in (*KEPT, *LEFT, "data/private.pkl"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(nbformat.writes(nbformat.v4.new_notebook(cells=[cell])))
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    subprocess.run(["git", "add", *KEPT, *LEFT], cwd=root, check=True)
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, "commit", "--quiet", "--message", "a"], cwd=root, check=True)
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


def test_it_needs_a_git_checkout(tmp_path):
    with pytest.raises(UserError, match="no git checkout"):
        hand_out(tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()
