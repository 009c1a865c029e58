"""A solution notebook begins where its course notebook ends."""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from IPython.utils.capture import capture_output

from imder_lib.runs.notebook import check_parameters, code_cells


def follow(path: str | Path, namespace: MutableMapping[str, Any], **parameters: Any) -> None:
    """Run a course notebook's code quietly in a namespace, so that its names are there; exercises are left out.

    Args:
        path: of the notebook, relative to the working folder.
        namespace: globals() of the notebook that follows.
        parameters: take the place of its own.

    Raises:
        UserError: a parameter that it does not have.
    """
    values = check_parameters(path, parameters)
    for name, source, tags in code_cells(path):
        if "exercise" not in tags:
            with capture_output():
                exec(compile(source, f"{Path(path).name}, cell {name}", "exec"), namespace)
        if "parameters" in tags:
            namespace.update(values)
