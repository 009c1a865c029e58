"""Execution of notebooks: parameters are checked before anything runs, progress is shown meanwhile."""

import ast
import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from imder_lib.errors import UserError, unknown, unwritable
from imder_lib.startup import set_waiting
from imder_runs.child import MARK, end_all
from imder_runs.places import CHECKOUT, NOTEBOOKS
from imder_runs.progress import progress_shown

TYPES = {"int": int, "float": float, "str": str, "bool": bool}
PORT_CLASH = ("Address already in use", "ZMQError", "Kernel died before replying to kernel_info")
ANSI = re.compile(r"\x1b\[[0-9;]*m")  # colours of a traceback
CHILD = Path(__file__).with_name("child.py")  # a process, which can be killed and shares no sockets with other runs
LONGEST = 2e6  # seconds that a process can be waited for
_running: dict[str, int] = {}  # mark -> pid of the processes that execute notebooks


@dataclass(frozen=True)
class Parameter:
    """One line ``name: type = default  # help`` of a parameters cell."""

    name: str
    type: str
    default: Any
    help: str


def code_cells(path: str | Path) -> list[tuple[str, str, list[str]]]:
    """Id, source and tags of the code cells of a notebook."""
    if not Path(path).is_file():
        named = f"{Path(path).name}.ipynb"
        near = any((folder / named).is_file() for folder in (Path(path).parent, NOTEBOOKS))
        raise UserError(f"no notebook at {path}{f': did you mean {named}?' if near else ''}")
    try:
        cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
        code = [c for c in cells if c["cell_type"] == "code"]
        return [(c.get("id", ""), "".join(c["source"]), c["metadata"].get("tags", [])) for c in code]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no notebook that can be read: {error!s:.120}") from None


def notebook_parameters(path: str | Path) -> dict[str, Parameter]:
    """Read the parameters of a notebook: one typed default per line of the cell tagged "parameters"."""
    tagged = [source for _, source, tags in code_cells(path) if "parameters" in tags]
    if len(tagged) != 1:
        raise UserError(f"{path} has {len(tagged)} cells tagged 'parameters', expected one")
    lines, found = tagged[0].splitlines(), {}
    form = f"is not 'name: {'|'.join(TYPES)} = default  # help'"
    try:
        nodes = ast.parse(tagged[0]).body
    except SyntaxError as error:
        raise UserError(f"{path}: parameters line {error.lineno} {form}") from None
    for node in nodes:
        match node:
            case ast.AnnAssign(ast.Name(name), ast.Name(kind), ast.expr() as value) if kind in TYPES:
                text = lines[node.lineno - 1].partition("#")[2].strip()
            case _:
                raise UserError(f"{path}: parameters line {node.lineno} {form}")
        try:
            found[name] = Parameter(name, kind, ast.literal_eval(value), text)
        except ValueError:
            shown = ast.unparse(value)
            raise UserError(f"{path}: the default of {name} must be one plain value, got {shown}") from None
    return found


def parse_value(parameter: Parameter, value: Any) -> Any:
    """Convert a value, given as text or typed, to the declared type of the parameter."""
    want, found = TYPES[parameter.type], value
    if want is bool and isinstance(value, str):
        found = {"true": True, "false": False}.get(value.lower(), value)
    elif isinstance(value, str) or (want is float and type(value) is int):
        with suppress(ValueError):
            found = want(value)
    if type(found) is not want:
        raise UserError(f"parameter {parameter.name} must be {parameter.type}, got {value!r} ({type(value).__name__})")
    return found


def check_parameters(path: str | Path, given: dict[str, Any]) -> dict[str, Any]:
    """Convert the given values to the declared types of the notebook's parameters; unknown names are errors."""
    known = notebook_parameters(path)
    for name in given:
        if name not in known:
            raise unknown(f"{Path(path).name} has no parameter", name, known)
    return {k: parse_value(known[k], v) for k, v in given.items()}


def check_timeout(seconds: float) -> None:
    if not seconds > 0:  # NaN too
        raise UserError(f"timeout must be a number of seconds above 0, got {seconds:g}")


def run_notebook(
    path: str | Path,
    out: str | Path,
    parameters: dict[str, Any] | None = None,
    *,
    timeout: float = 3600,
    shown: bool = True,
    threads: int = 0,
) -> None:
    """Execute a notebook without a browser and show its progress; the executed notebook is written on failure too.

    A run that does not end well leaves the executed notebook of an earlier run beside it, as NAME.previous.ipynb.
    The parameter ``live``, if the notebook has it, is False by default, because nobody can move a panel.

    Args:
        path: the notebook; its folder is the working folder, but for one of the package the current folder is.
        out: path of the executed notebook.
        parameters: name -> value, as text or typed.
        timeout: seconds for the whole run, not per cell.
        shown: show its progress here.
        threads: of PyTorch in the notebook; 0: OMP_NUM_THREADS, or PyTorch's own choice.

    Raises:
        UserError: bad parameters, ``out`` cannot be written, or the notebook raised a UserError.
        RuntimeError: the notebook failed or exceeded the time limit.
    """
    check_timeout(timeout)
    path, out = Path(path).resolve(), Path(out).resolve()
    values, defaults = check_parameters(path, parameters or {}), notebook_parameters(path)
    if "live" in defaults:
        values.setdefault("live", False)
    folder = path.parent
    if folder == NOTEBOOKS and not CHECKOUT:  # a package is no place for results
        folder = Path.cwd()
        values |= {"out": str(folder / "results" / "notebooks")} if "out" in defaults.keys() - values else {}
    if out == path or out.is_dir():
        raise UserError(f"{out} is {'the notebook itself' if out == path else 'a folder'}: name another file")
    if out.suffix != ".ipynb":
        raise UserError(f"{out}: expected a name that ends in .ipynb for the executed notebook")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise unwritable(out, error) from None
    # papermill treats braces in paths as format fields; doubled braces are literal.
    job = {k: str(v).replace("{", "{{").replace("}", "}}") for k, v in (("notebook", path), ("out", out))}
    job |= {"parameters": values, "cwd": str(folder), "parent": os.getpid()}
    models = folder / str(values.get("out", defaults["out"].default if "out" in defaults else "")) / "models"
    earlier = out.with_suffix(".previous.ipynb")
    if _complete(out):
        out.replace(earlier)
    with progress_shown([out], models) if shown else nullcontext():
        code, error = _child(json.dumps(job, ensure_ascii=False), timeout, threads)
        if code and any(sign in error for sign in PORT_CLASH):
            print(f"{path.name}: the kernel's port was in use, trying once more", flush=True)
            code, error = _child(json.dumps(job, ensure_ascii=False), timeout, threads)
    if code == 0:
        earlier.unlink(missing_ok=True)
    where = f"the executed notebook is {out}" + (f", that of an earlier run {earlier}" if earlier.exists() else "")
    if code is None:
        raise RuntimeError(f"{path.name} ran out of its {timeout:g} s; {where}")
    if code:
        last = ([line.strip() for line in ANSI.sub("", error).splitlines() if line.strip()] or ["no message"])[-1]
        kind, _, message = last.partition(": ")
        if kind.endswith("UserError"):
            raise UserError(f"{path.name}: {message}; {where}")
        raise RuntimeError(f"{path.name} failed: {last[:300]}; {where}")


def _complete(path: Path) -> bool:
    """Whether a file is worth keeping: anything but a notebook that papermill has not executed to its end."""
    try:
        run = json.loads(path.read_text(encoding="utf-8"))["metadata"]["papermill"]
        return bool(run["end_time"]) and not run["exception"]
    except (OSError, ValueError, KeyError, TypeError):
        return path.is_file()


def _child(job: str, timeout: float, threads: int) -> tuple[int | None, str]:
    """Exit code (None: timeout) and standard error of a papermill process; at the end nothing of it is left."""
    mark = uuid4().hex
    environment = os.environ | {
        MARK: mark,
        "PYTHONUTF8": "1",  # whatever the locale
        "PYTHONIOENCODING": "utf-8:surrogateescape",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    environment |= {"OMP_NUM_THREADS": str(threads)} if threads else {}
    set_waiting(environment, loaded=False)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    pipes |= {"encoding": "utf-8", "errors": "surrogateescape"}  # the bytes of a path, in any locale
    command = [sys.executable, "-P", str(CHILD)]  # -P: the modules beside the script are no top-level modules
    process = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
    _running[mark] = process.pid
    try:
        _, error = process.communicate(job, timeout=min(timeout, LONGEST))
        return process.returncode, error
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        if process.poll() is None:
            end_all(process.pid, mark)
            process.wait()
        del _running[mark]


def end_running() -> None:
    """End the notebooks that other threads of this process execute; they fail."""
    for mark, pid in list(_running.items()):
        end_all(pid, mark)
