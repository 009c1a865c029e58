"""Solution notebooks: run the code of their course notebook first."""

from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from IPython.utils.capture import capture_output

from imder_runs.notebook import check_parameters, code_cells


def follow(path: str | Path, namespace: MutableMapping[str, Any], **parameters: Any) -> None:
    """Run the code of a course notebook, without exercises and without output, to define its names in a namespace.

    Args:
        path: of the notebook, relative to the working folder.
        namespace: globals() of the solution notebook.
        parameters: new values of its parameters.

    Raises:
        UserError: an unknown parameter.
    """
    values = check_parameters(path, parameters)
    for name, source, tags in code_cells(path):
        if "exercise" not in tags:
            with capture_output():
                exec(compile(source, f"{Path(path).name}, cell {name}", "exec"), namespace)
        if "parameters" in tags:
            namespace.update(values)
