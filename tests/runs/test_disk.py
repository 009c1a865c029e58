"""A disk that is full: one line, exit code 1, nothing half-written, earlier results intact."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from matplotlib.figure import Figure
from safetensors import SafetensorError

from imder_lib import UserError, errors
from imder_lib.errors import unwritable
from imder_lib.experiment import checkpoint
from imder_lib.experiment.checkpoint import write_checkpoint, write_tensors
from imder_runs import setup

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
BY_LIBRARIES = [
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"),
]


def filled_by(monkeypatch, name):
    """The disk is full as soon as a text file with this name is written."""
    original = Path.write_text

    def write_text(self, text, **kw):
        original(self, text[:10] if name in self.name else text, **kw)
        if name in self.name:
            raise FULL

    monkeypatch.setattr(Path, "write_text", write_text)


def test_a_disk_that_is_full_from_the_start_leaves_no_folder(imder, tmp_path, monkeypatch):
    filled_by(monkeypatch, "run.json")
    code, _, error = imder("sweep", "--out", tmp_path / "out", "--profile", "smoke")
    assert (code, error) == (1, f"imder: {tmp_path}/out/run.json cannot be written: No space left on device\n")
    assert list(tmp_path.iterdir()) == []


def test_a_figure_on_a_full_disk_leaves_no_part_of_it(tmp_path, monkeypatch):
    def savefig(self, path, **_):
        Path(path).write_bytes(b"half")
        raise FULL

    monkeypatch.setattr(Figure, "savefig", savefig)
    with pytest.raises(RuntimeError, match=r"a\.png cannot be written: No space left"):
        setup.Run(None, "smoke", [1], tmp_path).save_figure(Figure(), "a", "caption")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("say", BY_LIBRARIES)
def test_a_full_disk_is_named_whatever_a_library_says(tmp_path, monkeypatch, say):
    def fail(*_):
        raise say

    monkeypatch.setattr(checkpoint, "save_file", fail)
    monkeypatch.setattr(torch, "save", fail)
    monkeypatch.setattr(errors, "disk_usage", lambda path: SimpleNamespace(free=4096))
    for write in (lambda: write_tensors(tmp_path / "a" / "x.st", {}), lambda: write_checkpoint(tmp_path / "a", {})):
        with pytest.raises(RuntimeError, match=r"cannot be written: No space left on device$"):
            write()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_may_not_be_written_is_bad_input(tmp_path):
    assert isinstance(unwritable(tmp_path, PermissionError(errno.EACCES, "Permission denied")), UserError)
    assert not isinstance(unwritable(tmp_path, FULL), UserError)
    assert str(unwritable(tmp_path / "a", RuntimeError("of another kind"))).endswith(
        "cannot be written: of another kind"
    )
