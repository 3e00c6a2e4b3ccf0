"""The error for what is not there to be read, or to be written to."""

from mmwave.errors import UserError


class MissingFileError(UserError, FileNotFoundError):
    """No checkpoint under a path, or no folder to write one in."""
