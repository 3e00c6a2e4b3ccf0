"""Errors a user can cause and mend: the tools print them in one line, without a traceback."""


class UserError(ValueError):
    """Input that does not fit; the message names the value and what is accepted."""
