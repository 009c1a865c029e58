"""A solution notebook begins where its course notebook ends."""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import nbformat
from IPython.utils.capture import capture_output

from imder_lib.runs.notebook import check_parameters


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
    for cell in nbformat.read(path, as_version=4).cells:
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code" and "exercise" not in tags:
            with capture_output():
                exec(compile(cell.source, f"{Path(path).name}, cell {cell.id}", "exec"), namespace)
        if "parameters" in tags:
            namespace.update(values)
