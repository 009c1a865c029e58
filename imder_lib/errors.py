"""The one error a user can mend: it says what was expected, what came, and what to do."""


class UserError(ValueError):
    """Bad input, a bad parameter or an unusable path. The command line prints it in one line and exits with 2."""
