"""The error for bad input. Its message says what was expected, what was given, and what to do."""


class UserError(ValueError):
    """Bad input, a bad parameter or an unusable path. The command line prints it in one line and exits with code 2."""
