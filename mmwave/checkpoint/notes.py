"""Values noted in a checkpoint beside its weights: anything at all, until it is checked."""

from typing import Any

from mmwave.errors import printable


def equals(mine: Any, noted: Any) -> bool:
    """Return whether a value noted in a file is ``mine``; arrays equal no plain value."""
    try:
        return bool(mine == noted)
    except (RecursionError, RuntimeError, TypeError, ValueError):  # compared item by item, or not
        return False


def brief(value: Any, most: int = 80) -> str:
    """Return a value of a file for a message or a log: in one line, cut after ``most``."""
    try:
        return printable(repr(value), most)
    except Exception:  # of classes of others, or nested too deeply
        return f'a {type(value).__name__}'
