"""Values as they are typed on a command line: ``--cfg-options KEY=VALUE``.

What mmengine's ``DictAction`` reads right is read the same: numbers, True, False and None, lists as
``1,2,3`` or in brackets, with or without quotes. It strips blanks, though, and splits every text at
its commas; here a text arrives as typed unless it is a list for sure, or replaces one.
"""

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

_BRACKETS = {'(': ')', '[': ']', '{': '}'}
_QUOTES = '\'"'
_BEFORE_QUOTES = ('', *'([{,:')  # elsewhere they are apostrophes
_WORD = re.compile(r'[^\W\d]\w*(-\w+)*')
_ESCAPED = re.compile(r'\\([\\\'"])')
# What names files: '2024_01_02' is then no number, and 'a,b' no list.
_NAMES_FILES = re.compile(
    r'(.*_)?(dir|file|from|path|prefix|root|suffix)|checkpoint|experiment_name|img|out'
)
_LOOKS_LIKE_A_PATH = re.compile(r'|.*/.*|.*\.[A-Za-z]\w*')


class Typed(str):
    """A value as it was typed, until the setting that it replaces is known: see :func:`read`."""

    __slots__ = ()


def read(text: str, key: str = '', present: Any = None) -> Any:
    """Return the value that a text stands for.

    Args:
        text: as typed.
        key: dotted key of the setting; some names are those of files.
        present: the value in the config, None where there is none: the text is a list more readily
            where it replaces one, and is not taken apart where it replaces a path.

    Returns:
        - a number, True or False (in any case), None, a list, tuple or dict where the text is one:
          dicts in Python's or JSON's form, lists and tuples in brackets, their texts with or
          without quotes;
        - the text inside of quotes;
        - a list where parts between commas are numbers and the like or plain words, or where
          ``present`` is a list or tuple;
        - else the text, blanks and all. For files (by ``key``, or where ``present`` is a path),
          numbers and parts between commas are text as well.
    """
    stripped = text.strip()
    quoted = _quoted(stripped)
    if quoted is not None:
        # Some shells leave the quotes around "[(1,2),(3,4)]".
        is_list = not isinstance(present, str) and quoted[:1] in ('[', '(') and _encloses(quoted)
        return read(quoted, key, present) if is_list else quoted
    if stripped[:1] in _BRACKETS and _encloses(stripped):
        try:
            value = _in_brackets(stripped)
        except RecursionError:
            return text
        return text if value is stripped else value
    value = _plain(stripped)
    if _names_files(key, present):
        return value if value is None or isinstance(value, bool) else text
    if value is not stripped:
        return value
    parts = _split(stripped)
    if parts == [stripped]:
        return text
    sure = all(_is_sure(part) for part in parts)
    if sure or isinstance(present, list | tuple):
        return [_element(part) for part in parts]
    return text


def _names_files(key: str, present: Any) -> bool:
    if isinstance(present, str):
        return _LOOKS_LIKE_A_PATH.fullmatch(present) is not None
    return present is None and _NAMES_FILES.fullmatch(key.rpartition('.')[2]) is not None


def _plain(text: str) -> Any:
    """Return the number, bool or None that a text is, else the same text."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    if text.lower() in ('true', 'false'):
        return text.lower() == 'true'
    return None if text == 'None' else text


def _quoted(text: str) -> str | None:
    """Return the text inside of quotes, None where a text is not quoted as a whole."""
    if len(text) < 2 or text[0] not in _QUOTES or _end_of_quotes(text, 0) != len(text):
        return None
    return _ESCAPED.sub(r'\1', text[1:-1])


def _end_of_quotes(text: str, start: int) -> int:
    """Return the index behind the quotes that open at ``start``, or -1 where they do not close."""
    index = start + 1
    while index < len(text):
        if text[index] == '\\' and text[index + 1 : index + 2] in ('\\', *_QUOTES):
            index += 1
        elif text[index] == text[start]:
            return index + 1
        index += 1
    return -1


def _outside_quotes(text: str) -> Iterator[tuple[int, str]]:
    """Yield the characters that stand in no quotes, with their indices."""
    index = 0
    while index < len(text):
        if text[index] in _QUOTES and text[:index].rstrip()[-1:] in _BEFORE_QUOTES:
            end = _end_of_quotes(text, index)
            if end > 0:  # else it is an apostrophe
                index = end
                continue
        yield index, text[index]
        index += 1


def _split(text: str) -> list[str]:
    """Split at the commas outside of brackets and quotes; a last comma adds nothing."""
    parts, start, depth = [], 0, 0
    for index, character in _outside_quotes(text):
        depth += (character in _BRACKETS) - (character in _BRACKETS.values())
        if character == ',' and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    rest = text[start:].strip()
    return [*parts, rest] if rest or not parts else parts


def _encloses(text: str) -> bool:
    """Return whether the bracket that a text begins with closes at its end, and all inside too."""
    expected: list[str] = []
    for index, character in _outside_quotes(text):
        if character in _BRACKETS:
            expected.append(_BRACKETS[character])
        elif character in _BRACKETS.values():
            if not expected or expected.pop() != character:
                return False
            if not expected and index != len(text) - 1:
                return False
    return not expected


def _in_brackets(text: str) -> Any:
    """Return the list, tuple or dict that a text in brackets is, else the same text."""
    if text[0] == '{':
        for reader in (ast.literal_eval, json.loads):
            try:
                return reader(text)
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                pass
        return text
    inner = text[1:-1].strip()
    values = [_element(part) for part in _split(inner)] if inner else []
    return tuple(values) if text[0] == '(' else values


def _element(text: str) -> Any:
    quoted = _quoted(text)
    if quoted is not None:
        return quoted
    if text[:1] in _BRACKETS and _encloses(text):
        return _in_brackets(text)
    return _plain(text)


def _is_sure(part: str) -> bool:
    """Return whether a part between commas is an element of a list, and not of a sentence."""
    if _WORD.fullmatch(part) or _quoted(part) is not None:
        return True
    if part[:1] in _BRACKETS:
        return _encloses(part) and _in_brackets(part) is not part
    return _plain(part) is not part
