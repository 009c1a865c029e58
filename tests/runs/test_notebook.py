"""Execution of notebooks: checked parameters, time limit, and output that is kept on failure."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from imder_lib import UserError
from imder_runs import notebook as runner
from imder_runs.notebook import Parameter, check_parameters, notebook_parameters, parse_value, run_notebook

PARAMETERS = """name: str = "a"  # any text
rate: float = 0.1  # a number
steps: int = 3  # a whole number
fast: bool = False  # or not"""
LOOP = """pipe = open({!r}, "w")
print("begun", flush=True)
pipe.write("x")
pipe.flush()
while True:
    pass"""
SLEEPER = """import subprocess
pipe = open({!r}, "w")
subprocess.Popen("sleep 1000 & echo x; exec sleep 1000", shell=True, stdout=pipe, start_new_session=True)
while True:
    pass"""


def text_of(path):
    notebook = nbformat.read(path, as_version=4)
    return "".join(o.get("text", "") for c in notebook.cells if c.cell_type == "code" for o in c.outputs)


def test_parameters_of_a_notebook(write_notebook):
    found = notebook_parameters(write_notebook(PARAMETERS))
    assert found["rate"] == Parameter("rate", "float", 0.1, "a number")
    assert [p.type for p in found.values()] == ["str", "float", "int", "bool"]


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        ("str", "007", "007"),
        ("str", "true", "true"),
        ("int", "007", 7),
        ("int", "-3", -3),
        ("float", "1e-3", 0.001),
        ("float", "2", 2.0),
        ("float", 2, 2.0),
        ("bool", "true", True),
        ("bool", "False", False),
        ("bool", True, True),
    ],
)
def test_values_are_converted_to_the_declared_type(kind, given, value):
    got = parse_value(Parameter("x", kind, None, ""), given)
    assert (got, type(got)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "given"),
    [("int", "1.5"), ("int", 1.0), ("int", True), ("int", "x"), ("float", "x"), ("float", True), ("bool", "1"),
     ("bool", 1), ("str", 7), ("int", None)],
)  # fmt: skip
def test_other_types_raise(kind, given):
    with pytest.raises(UserError, match=f"parameter x must be {kind}"):
        parse_value(Parameter("x", kind, None, ""), given)


@pytest.mark.parametrize("cell", ["seed = 1", "seed: list = []", "seed: int", "seed: int | None = None"])
def test_a_parameters_cell_must_have_typed_defaults(write_notebook, cell):
    with pytest.raises(UserError, match="parameters line 1"):
        notebook_parameters(write_notebook(cell))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("rate: float = 2 * 3", r"the default of rate must be one plain value, got 2 \* 3"),
        ("rate: float = 2\n%matplotlib inline", r"parameters line 2 is not 'name: "),
        ("rate: float = (2", "parameters line 1 is not 'name: "),
    ],
)
def test_a_parameters_cell_that_cannot_be_read(imder, write_notebook, tmp_path, cell, message):
    code, _, error = imder("run", write_notebook(cell), tmp_path / "out.ipynb")
    assert (code, error.count("\n")) == (2, 1)
    assert re.search(message, error)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["nmae=b"], "has no parameter 'nmae': did you mean name? expected one of ['name', 'rate', 'steps', 'fast']"),
        (["name=b", "Steps=3"], "has no parameter 'Steps'"),
        (["steps=many"], "parameter steps must be int, got 'many'"),
        (["fast=1"], "parameter fast must be bool"),
        (["name"], "expected NAME=VALUE"),
    ],
)
def test_bad_parameters_give_exit_code_2_and_no_files(imder, write_notebook, tmp_path, given, message):
    source = write_notebook(PARAMETERS, "print(1)")
    options = [word for pair in given for word in ("-p", pair)]
    code, _, error = imder("run", source, tmp_path / "out" / "done.ipynb", *options)
    assert code == 2
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [source.parent]


def test_the_output_must_be_a_file_that_can_be_written(imder, write_notebook, tmp_path):
    source = write_notebook(PARAMETERS, "print(1)")
    before = source.read_bytes()
    for out in (source / "below_a_file.ipynb", "/proc/none.ipynb", "/proc/none/none.ipynb", tmp_path, source):
        code, _, error = imder("run", source, out)
        assert (code, error.count("\n")) == (2, 1), out
    assert source.read_bytes() == before
    for absent in (tmp_path / "none.ipynb", tmp_path):
        assert imder("run", absent, tmp_path / "out.ipynb")[0] == 2


def test_values_and_paths_are_passed_unchanged(imder, write_notebook, tmp_path):
    source = write_notebook(PARAMETERS, "print([name, rate, steps, fast])", name="{braces} {0}")
    out = tmp_path / "a {b} {}" / "{out}.ipynb"
    options = ["-p", "name=007", "-p", "rate=1e-3", "-p", "steps=007", "-p", "fast=true"]
    code, text, error = imder("run", source, out, *options)
    assert (code, error) == (0, "")
    assert str(out) in text
    assert "['007', 0.001, 7, True]" in text_of(out)


@pytest.mark.parametrize(("given", "shown"), [({}, False), ({"live": "true"}, True)])
def test_live_is_false_by_default(write_notebook, tmp_path, given, shown):
    source = write_notebook("live: bool = True  # panels move", "print(live)")
    run_notebook(source, tmp_path / "out.ipynb", given)
    assert text_of(tmp_path / "out.ipynb").strip() == str(shown)


def test_a_failing_notebook_is_kept(imder, write_notebook, tmp_path):
    out = tmp_path / "out.ipynb"
    code, _, error = imder("run", write_notebook(PARAMETERS, "print('before')", "1 / 0", "print('after')"), out)
    assert code == 1
    assert error.count("\n") == 1
    assert "ZeroDivisionError: division by zero" in error
    assert str(out) in error
    assert text_of(out).strip() == "before"
    outputs = [o.output_type for c in nbformat.read(out, as_version=4).cells for o in c.get("outputs", [])]
    assert "error" in outputs


def test_a_failed_run_leaves_the_earlier_notebook(imder, write_notebook, tmp_path):
    source, out, earlier = write_notebook(PARAMETERS, "print(1 / rate)"), tmp_path / "out.ipynb", "out.previous.ipynb"
    texts = []
    for rate, code in (("0.5", 0), ("0", 1), ("0", 1), ("0.25", 0)):
        result, _, error = imder("run", source, out, "-p", f"rate={rate}")
        assert (result, earlier in error) == (code, code == 1), error
        kept = tmp_path / earlier
        texts.append(text_of(kept).strip() if kept.exists() else None)
    assert texts == [None, "2.0", "2.0", None]
    assert text_of(out).strip() == "4.0"
    out.write_text("not written by papermill")
    assert imder("run", source, out, "-p", "rate=0")[0] == 1
    assert (tmp_path / earlier).read_text() == "not written by papermill"


def test_a_user_error_in_a_notebook_gives_exit_code_2(imder, write_notebook, tmp_path):
    cell = "from imder_lib import availability\navailability('random', 4, ['text', 'audio', 'vision'], rate)"
    out = tmp_path / "out.ipynb"
    code, _, error = imder("run", write_notebook(PARAMETERS, cell), out, "-p", "rate=0.8")
    assert (code, error.count("\n")) == (2, 1)
    assert "rate 0.8 is outside [0, 0.6667]: at least one of 3 modalities must be available" in error
    assert out.exists()


@pytest.fixture
def pipe(tmp_path):
    """A named pipe: opening it waits for the kernel, reading to its end waits until the kernel has ended."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def test_a_run_ends_at_the_time_limit_and_its_output_is_kept(write_notebook, tmp_path, pipe, monkeypatch):
    reader = []

    def communicate(process, job, timeout):
        assert timeout == 123
        process.stdin.write(job)
        process.stdin.close()
        reader.append(pipe.open())
        assert reader[0].read(1) == "x"  # the cell runs: now the time limit is reached
        raise subprocess.TimeoutExpired("papermill", timeout)

    monkeypatch.setattr(subprocess.Popen, "communicate", communicate)
    out = tmp_path / "out.ipynb"
    with pytest.raises(RuntimeError, match=r"ran out of its 123 s; .*out\.ipynb"):
        run_notebook(write_notebook("", "print('first')", SLEEPER.format(str(pipe))), out, timeout=123)
    assert reader[0].read() == "\n"  # returns only when kernel and sleepers have ended
    assert "first" in text_of(out)


def test_a_time_limit_before_the_kernel_starts(write_notebook, tmp_path):
    with pytest.raises(RuntimeError, match=r"ran out of its 0\.001 s"):
        run_notebook(write_notebook("", "print(1)"), tmp_path / "out.ipynb", timeout=0.001)


def test_a_killed_runner_leaves_no_kernel(write_notebook, tmp_path, pipe):
    source = write_notebook("", LOOP.format(str(pipe)))
    process = started("run", source, tmp_path / "out.ipynb")
    with pipe.open() as reader:
        assert reader.read(1) == "x"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert reader.read() == ""


def started(*arguments, **environment):
    command = [sys.executable, "-m", "imder_runs.cli", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": os.environ | environment}
    # Shells without job control start a background command with Ctrl-C ignored.
    return subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **pipes)


def test_ctrl_c_ends_all_that_a_notebook_has_started(write_notebook, tmp_path, pipe):
    process = started("run", write_notebook("", SLEEPER.format(str(pipe))), tmp_path / "out.ipynb")
    with pipe.open() as reader:
        assert reader.read(1) == "x"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
        assert (process.returncode, error) == (130, "imder: interrupted: run it again\n")
        assert reader.read() == "\n"  # returns only when kernel and sleepers have ended


def test_ctrl_c_while_the_command_imports(tmp_path, pipe):
    (tmp_path / "pandas.py").write_text(f"open({str(pipe)!r}, 'w').write('x')\nwhile True: pass")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    process = started("reproduce", PYTHONPATH=path)
    assert pipe.open().read(1) == "x"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate()
    assert (process.returncode, error) == (130, "imder: interrupted: continue with --resume\n")


@pytest.mark.parametrize("seconds", ["nan", "-5", "0"])
def test_a_time_limit_must_be_positive(imder, write_notebook, tmp_path, seconds):
    for command in (("run", write_notebook(""), tmp_path / "o.ipynb"), ("reproduce", "--out", tmp_path / "out")):
        code, _, error = imder(*command, "--timeout", seconds)
        assert (code, error) == (2, f"imder: timeout must be a number of seconds above 0, got {seconds}\n")
    assert len(list(tmp_path.iterdir())) == 1  # the notebook's folder


@pytest.mark.parametrize("sign", runner.PORT_CLASH)
def test_a_port_clash_is_retried(write_notebook, tmp_path, monkeypatch, capsys, sign):
    answers = [(1, f"Traceback\nError: {sign}"), (0, "")]
    monkeypatch.setattr(runner, "_child", lambda job, timeout, threads: answers.pop(0))
    run_notebook(write_notebook(PARAMETERS), tmp_path / "out.ipynb")
    assert answers == []
    assert "once more" in capsys.readouterr().out


def test_only_a_port_clash_is_retried_and_only_once(write_notebook, tmp_path, monkeypatch):
    for error, tries in ((runner.PORT_CLASH[0], 2), ("ValueError: no", 1)):
        answers = [(1, error)] * 3
        monkeypatch.setattr(runner, "_child", lambda job, timeout, threads, answers=answers: answers.pop(0))
        with pytest.raises(RuntimeError, match=error):
            run_notebook(write_notebook(PARAMETERS), tmp_path / "out.ipynb")
        assert len(answers) == 3 - tries


@pytest.mark.parametrize(("threads", "expected"), [(0, 5), (3, 3)])
def test_a_notebook_gets_its_threads(write_notebook, tmp_path, monkeypatch, threads, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    check = f"import os\nassert os.environ['OMP_NUM_THREADS'] == '{expected}'"
    run_notebook(write_notebook("", check), tmp_path / "out.ipynb", threads=threads)


def test_parameters_are_checked_without_a_run(write_notebook):
    assert check_parameters(write_notebook(PARAMETERS), {"rate": "0.5"}) == {"rate": 0.5}
