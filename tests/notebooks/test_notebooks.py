"""Notebooks: their form, exercises, and runs of the course with its solutions in profile smoke."""

import ast
import runpy

import nbformat
import pytest

from imder_course.exercises import follow
from imder_lib.errors import UserError
from imder_runs.notebook import code_cells as sources
from imder_runs.notebook import notebook_parameters, run_notebook
from imder_runs.reproduce import NOTEBOOKS
from tools.course import SOLUTIONS, tagged, with_exercises
from tools.form import form_problems

ALL = sorted(NOTEBOOKS.glob("*.ipynb"))
SOLVED = sorted(SOLUTIONS.glob("*.ipynb"))


@pytest.mark.parametrize("path", ALL, ids=lambda p: p.stem)
def test_form(path):
    assert form_problems(path) == []


def edit_title(notebook):
    notebook.cells[0].source = notebook.cells[0].source.replace("# 0", "# One ")


def edit_recap(notebook):
    for cell in notebook.cells:
        cell.source = cell.source.replace("## Recap", "## End")


def edit_help(notebook):
    code_cells(notebook)[0].source = "seed: int = 1"


def edit_type(notebook):
    code_cells(notebook)[0].source = "seed = 1  # an untyped one"


def edit_tag(notebook):
    code_cells(notebook)[0].metadata.tags = []


def edit_length(notebook):
    code_cells(notebook)[1].source = "1\n" * 15 + "1"


def edit_kernel(notebook):
    notebook.metadata.kernelspec.name = "other"


def edit_outputs(notebook):
    for cell in code_cells(notebook):
        cell.outputs = []


def edit_count(notebook):
    code_cells(notebook)[-1].execution_count = None


def edit_order(notebook):
    code = code_cells(notebook)
    code[1].execution_count, code[2].execution_count = code[2].execution_count, code[1].execution_count


def edit_run_again(notebook):
    code_cells(notebook)[2].execution_count = code_cells(notebook)[-1].execution_count + 1


def edit_error(notebook):
    code_cells(notebook)[1].outputs.append(nbformat.v4.new_output("error", ename="E", evalue="", traceback=[]))


def edit_alt(notebook):
    next(o for c in code_cells(notebook) for o in c.outputs if "image/png" in o.get("data", {})).metadata = {}


def edit_references(notebook):
    notebook.cells[-1].source = notebook.cells[-1].source.replace("**References.**", "")


def edit_size(notebook):
    notebook.cells[0].source += "x" * 2_000_000


def code_cells(notebook):
    return [c for c in notebook.cells if c.cell_type == "code"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (edit_title, "title"),
        (edit_recap, "'## Recap'"),
        (edit_help, "seed has no # help"),
        (edit_type, "is not 'name:"),
        (edit_tag, "0 cells tagged"),
        (edit_length, "longer than 15"),
        (edit_kernel, "kernel"),
        (edit_outputs, "outputs are missing"),
        (edit_count, "outputs are missing"),
        (edit_order, "not of one run"),
        (edit_run_again, "not of one run"),
        (edit_error, "ends in an error"),
        (edit_size, "bytes"),
        (edit_alt, "without alt text"),
        (edit_references, "References"),
    ],
)
def test_problems_of_form_are_reported(tmp_path, edit, message):
    notebook = nbformat.read(ALL[0], as_version=4)
    edit(notebook)
    path = tmp_path / ALL[0].name
    nbformat.write(notebook, path)
    found = form_problems(path)
    assert len(found) == 1
    assert message in found[0]


def test_form_as_a_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "no.ipynb").write_text("{")
    for more, code in (([], 0), ([tmp_path / "no.ipynb"], 1)):
        monkeypatch.setattr("sys.argv", ["form", str(ALL[0]), *map(str, more)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(NOTEBOOKS.parent / "tools" / "form.py"), run_name="__main__")
        assert int(end.value.code) == code
        out = capsys.readouterr().out
        assert out.count("\n") == out.count("is no notebook") == code


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One folder for all notebooks, which share trained models."""
    return tmp_path_factory.mktemp("shared")


def run_smoke(path, executed, out):
    """Run a notebook in profile smoke; check that every cell has run."""
    run_notebook(path, executed, {"profile": "smoke", "out": str(out)})
    assert all(c.execution_count for c in code_cells(nbformat.read(executed, as_version=4)))


def test_every_notebook_has_solutions():
    assert [p.name for p in SOLVED] == [p.name for p in ALL]


@pytest.mark.parametrize("path", ALL, ids=lambda p: p.stem)
def test_notebooks_run_and_their_solutions_assert_their_claims(shared, path):
    """In one kernel: the answers stand in place of the exercises, so that the course's code runs once."""
    notebook, solved = nbformat.read(path, as_version=4), nbformat.read(SOLUTIONS / path.name, as_version=4)
    answers = [c for c in solved.cells if {"exercise", "solution"} & set(c.metadata.get("tags", []))]
    notebook.cells = [c for c in notebook.cells if "exercise" not in c.metadata.get("tags", [])] + answers
    nbformat.write(notebook, shared / path.name)
    run_smoke(shared / path.name, shared / "executed" / path.name, shared / "run")
    assert all(list((shared / "run" / folder).glob(f"{path.stem[:2]}_*")) for folder in ("tables", "figures"))


def test_a_solution_notebook_runs(tmp_path):
    run_smoke(SOLUTIONS / "02_score_diffusion.ipynb", tmp_path / "executed.ipynb", tmp_path / "run")


@pytest.mark.parametrize("path", SOLVED, ids=lambda p: p.stem)
def test_solutions_follow_their_notebook_with_its_parameters(path):
    own, course = notebook_parameters(path), notebook_parameters(NOTEBOOKS / path.name)
    follow_cell = sources(path)[1][1]
    call = ast.parse(follow_cell).body[-1].value
    given = {k.arg for k in call.keywords}
    assert [ast.unparse(x) for x in call.args] == [repr(f"../{path.name}"), "globals()"]
    assert own.keys() <= given <= course.keys()
    assert all(own[k].type == course[k].type for k in own)
    assert all((own[k].default == course[k].default) == (k != "out") for k in own)  # a folder deeper


@pytest.mark.parametrize("path", ALL, ids=lambda p: p.stem)
def test_exercises_come_from_the_solutions(path):
    course, solved = nbformat.read(path, as_version=4), nbformat.read(SOLUTIONS / path.name, as_version=4)
    assert with_exercises(course, solved) == course  # else: make notebooks
    kinds = [next((t for t in ("exercise", "solution") if t in c.metadata.get("tags", [])), "") for c in solved.cells]
    stubs = [i for i, c in enumerate(solved.cells) if kinds[i] == "exercise" and c.cell_type == "code"]
    assert 2 <= len(stubs) <= 3
    for i in stubs:
        answer = solved.cells[i + 1]
        assert (kinds[i + 1], answer.cell_type) == ("solution", "code")
        assert "assert " in answer.source
        assert "print(" in solved.cells[i].source  # a stub runs without its solution


def test_printed_sources_are_those_of_today(capsys):
    cells = [c for path in ALL for c in nbformat.read(path, as_version=4).cells if "inspect.getsource" in c.source]
    assert cells
    for cell in cells:
        exec("import inspect\n" + cell.source, {})
        assert capsys.readouterr().out == cell.outputs[0].text  # else: make notebooks


def test_edited_exercises_are_copied_and_other_outputs_are_kept():
    course, solved = (nbformat.read(p / ALL[0].name, as_version=4) for p in (NOTEBOOKS, SOLUTIONS))
    first, second = tagged(solved, "exercise")[:2]
    first.source += " More."
    changed = with_exercises(course, solved)
    assert tagged(changed, "exercise")[0].source.endswith(" More.")
    kept = [c.outputs for c in tagged(course, "exercise") if c.id == second.id]
    assert [c.outputs for c in tagged(changed, "exercise") if c.id == second.id] == kept
    solved.cells = [c for c in solved.cells if c.id != first.id]
    assert first.id not in [c.id for c in with_exercises(changed, solved).cells]


def test_follow_runs_quietly_with_other_parameters(capsys):
    names = {}
    with pytest.raises(UserError, match="no parameter 'speed'"):
        follow(NOTEBOOKS / "02_score_diffusion.ipynb", names, speed=1)
    assert names == {}


def test_extensions_are_short():
    """Each extension in notebook 08 has fewer than thirty lines."""
    cells = tagged(nbformat.read(NOTEBOOKS / "08_your_own_data.ipynb", as_version=4), "extension")
    modality, marginal, named, sampler = (c.source.count("\n") + 1 for c in cells)
    assert max(modality, marginal + named, sampler) < 30
