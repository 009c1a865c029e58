"""A strict papermill: what papermill only warns of is an error here, before anything runs."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imder_lib.errors import UserError
from imder_lib.threads import set_waiting

TYPES = {"int": int, "float": float, "str": str, "bool": bool}
PORT_CLASH = ("Address already in use", "ZMQError", "Kernel died before replying to kernel_info")
ANSI = re.compile(r"\x1b\[[0-9;]*m")  # colours of a traceback
# Runs in a process of its own: a notebook's kernel cannot outlive its time, and two runs share no sockets. It ends when
# the process that started it is gone (killed, say), so that a resumed run never meets the old one in its folder.
CHILD = """
import json, os, sys, threading, time, papermill
job = json.load(sys.stdin)
def watch():
    while os.getppid() == job["parent"]:
        time.sleep(0.5)
    os._exit(1)  # the kernel watches this process in the same way
threading.Thread(target=watch, daemon=True).start()
papermill.execute_notebook(job["notebook"], job["out"], parameters=job["parameters"], kernel_name="python3",
                           progress_bar=False, cwd=job["cwd"], log_output=False)
"""


@dataclass(frozen=True)
class Parameter:
    """One line ``name: type = default  # help`` of a parameters cell."""

    name: str
    type: str
    default: Any
    help: str


def code_cells(path: str | Path) -> list[tuple[str, str, list[str]]]:
    """Id, source and tags of each code cell of a notebook."""
    if not Path(path).is_file():
        raise UserError(f"no notebook at {path}")
    try:
        cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
        code = [c for c in cells if c["cell_type"] == "code"]
        return [(c.get("id", ""), "".join(c["source"]), c["metadata"].get("tags", [])) for c in code]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no notebook: {error!s:.120}") from None


def notebook_parameters(path: str | Path) -> dict[str, Parameter]:
    """The parameters of a notebook: its cell tagged "parameters", one plainly typed default a line."""
    tagged = [source for _, source, tags in code_cells(path) if "parameters" in tags]
    if len(tagged) != 1:
        raise UserError(f"{path} has {len(tagged)} cells tagged 'parameters', expected one")
    lines, found = tagged[0].splitlines(), {}
    for node in ast.parse(tagged[0]).body:
        if not isinstance(node, ast.AnnAssign) or ast.unparse(node.annotation) not in TYPES or node.value is None:
            raise UserError(f"{path}: parameters line {node.lineno} is not 'name: {'|'.join(TYPES)} = default  # help'")
        name, kind = ast.unparse(node.target), ast.unparse(node.annotation)
        text = lines[node.lineno - 1].partition("#")[2].strip()
        found[name] = Parameter(name, kind, ast.literal_eval(node.value), text)
    return found


def parse_value(parameter: Parameter, value: Any) -> Any:
    """A value given as text or as itself, in the parameter's declared type; a str stays as it was typed."""
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
    """Every given value under a name the notebook has, in its declared type."""
    known = notebook_parameters(path)
    if unknown := [k for k in given if k not in known]:
        raise UserError(f"{Path(path).name} has no parameter {unknown[0]!r}: expected one of {list(known)}")
    return {k: parse_value(known[k], v) for k, v in given.items()}


def run_notebook(
    path: str | Path, out: str | Path, parameters: dict[str, Any] | None = None, *, timeout: float = 3600
) -> None:
    """Execute a notebook headlessly; the executed one is kept, also on failure.

    A notebook with a parameter ``live`` gets False unless another value is given: no one is there to move a panel.

    Args:
        path: the notebook; it runs in its own folder.
        out: the executed notebook.
        parameters: name -> value, as text or typed; an unknown name or a wrong type raises before anything runs.
        timeout: seconds for the whole run, not for each cell.

    Raises:
        UserError: bad parameters, an output that cannot be written, or bad input that the notebook met.
        RuntimeError: the notebook failed or ran out of time; says where to look.
    """
    path, out = Path(path).resolve(), Path(out).resolve()
    values = check_parameters(path, parameters or {})
    if "live" in notebook_parameters(path):
        values.setdefault("live", False)
    if out == path or out.is_dir():
        raise UserError(f"{out} is {'the notebook itself' if out == path else 'a folder'}: name another file")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from None
    # papermill formats braces in paths; doubled ones survive.
    safe = {k: str(v).replace("{", "{{").replace("}", "}}") for k, v in (("notebook", path), ("out", out))}
    job = json.dumps(safe | {"parameters": values, "cwd": str(path.parent), "parent": os.getpid()})
    code, error = _child(job, timeout)
    if code and any(sign in error for sign in PORT_CLASH):
        print(f"{path.name}: the kernel's port was taken, trying once more", flush=True)
        code, error = _child(job, timeout)
    if code == 0:
        return
    where = f"the executed notebook is {out}"
    if code is None:
        raise RuntimeError(f"{path.name} ran out of its {timeout:g} s; {where}")
    last = ([line.strip() for line in ANSI.sub("", error).splitlines() if line.strip()] or ["no message"])[-1]
    kind, _, message = last.partition(": ")
    if kind.endswith("UserError"):
        raise UserError(f"{path.name}: {message}; {where}")
    raise RuntimeError(f"{path.name} failed: {last[:300]}; {where}")


def _child(job: str, timeout: float) -> tuple[int | None, str]:
    """Exit code (None: out of time) and standard error of one papermill process; nothing of it survives."""
    environment = os.environ | {
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }
    set_waiting(environment, loaded=False)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", CHILD], env=environment, start_new_session=True, **pipes)
    try:
        _, error = process.communicate(job, timeout=timeout)
        return process.returncode, error
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
