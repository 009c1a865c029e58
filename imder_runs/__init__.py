"""Everything around the library that runs it: the command imder, notebooks without a browser, reports, sweeps."""

import imder_lib  # noqa: F401  first: what it sets must be set before PyTorch is imported
