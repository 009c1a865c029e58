"""Buttons that open a GitHub copy of the course on hosted machines: python -m tools.launch OWNER/NAME."""

import re
import sys

from imder_lib.errors import UserError

START = "notebooks/00_start_here.ipynb"


def buttons(repository: str, branch: str = "main") -> str:
    """Markdown of three buttons: Colab, Codespaces, Binder.

    Args:
        repository: OWNER/NAME on GitHub.
        branch: branch to open.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UserError(f"expected OWNER/NAME, got {repository!r}")
    places = {
        "Open in Colab": f"https://colab.research.google.com/github/{repository}/blob/{branch}/{START}",
        "Open in Codespaces": f"https://codespaces.new/{repository}?ref={branch}",
        "Open in Binder": f"https://mybinder.org/v2/gh/{repository}/{branch}?urlpath=lab/tree/{START}",
    }
    colours = ("F9AB00", "24292F", "579ACA")
    rows = []
    for (name, link), colour in zip(places.items(), colours, strict=True):
        badge = f"https://img.shields.io/badge/{name.replace(' ', '%20')}-{colour}"
        rows.append(f"[![{name}]({badge})]({link})")
    return "\n".join(rows)


if __name__ == "__main__":
    try:
        print(buttons(sys.argv[1] if len(sys.argv) > 1 else ""))
    except UserError as error:
        sys.exit(f"{error}: python -m tools.launch OWNER/NAME")
