"""Errors a user can cause and mend: the tools print them in one line, without a traceback."""

_MAX_PATH = 1000


class UserError(ValueError):
    """Input that does not fit; the message names the value and what is accepted."""


def printable(text: object, limit: int = 200) -> str:
    """Return a text out of a file or a command as one line that is safe in a terminal and a log.

    Args:
        text: converted by ``str()``.
        limit: number of its characters that are shown; a longer one is cut, and its length told.

    Returns:
        The text with every character escaped that is not printable: control characters, line
        breaks, lone surrogates, and those that change the direction of writing among them.
    """
    text = str(text)
    shown = ''.join(map(_escaped, text[:limit]))
    return shown if len(text) <= limit else f'{shown}... ({len(text)} characters)'


def printable_path(path: object) -> str:
    """Return a path, or an address, as :func:`printable` text that is rarely cut."""
    return printable(path, _MAX_PATH)


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode('unicode_escape').decode('ascii')
