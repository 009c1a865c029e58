"""Everything around the library that runs it: the command imder, notebooks without a browser, reports, sweeps."""

from imder_runs import interrupts  # noqa: F401  first: the imports below take seconds

# isort: split
import imder_lib  # noqa: F401  before PyTorch, whose threads it sets
