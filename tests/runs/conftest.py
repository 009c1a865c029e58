"""The command line, called in this process, and small notebooks."""

import sys
import warnings

import nbformat
import pytest

from imder_runs import cli


@pytest.fixture
def imder(monkeypatch, capsys):
    """imder ARGUMENT... -> (exit code, standard output, standard error)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["imder", *map(str, arguments)])
        monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # main sets it; monkeypatch restores it
        try:
            code = cli.main() or 0
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def write_notebook(tmp_path):
    """Parameters cell and further cells -> path of a notebook in its own folder."""

    def write(parameters, *cells, name="tiny"):
        notebook = nbformat.v4.new_notebook()
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        tags = {"tags": ["parameters"]}
        notebook.cells = [nbformat.v4.new_code_cell(parameters, metadata=tags)]
        notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
        path = tmp_path / "source" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(notebook, path)
        return path

    return write
