"""Settings as the text of a config, laid out as a formatter would at 100 columns."""

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 100
_INDENT = '    '
_MOST_COLOURS = 24
# Steps between hues that never come close to an earlier one.
_GOLDEN = 0.61803398875


class Code(str):
    """An expression that stands in the text as it is."""

    __slots__ = ()


def statement(name: str, value: Any, comment: str = '') -> str:
    """Return ``name = value`` with a comment above it."""
    note = f'# {comment}\n' if comment else ''
    if isinstance(value, list | tuple) and not _fits(name, value) and not _has_settings(value):
        return f'{note}# fmt: off\n{name} = {_filled(value)}\n# fmt: on'
    return f'{note}{_laid_out(f"{name} = ", value, 0, 0)}'


def number(value: float) -> str:
    """Return a number as people write it: 2e-4, 0.05, 12."""
    text = f'{value:.6g}'
    if 0 < abs(value) < 0.01:
        digits, _, exponent = f'{value:.5e}'.partition('e')
        text = f'{digits.rstrip("0").rstrip(".")}e{int(exponent)}'
    return text


def colours(count: int) -> Any:
    """Return a colour for each class: numbers for a few, an expression for many."""
    if count > _MOST_COLOURS:
        return Code(f'[(37 * i % 256, 91 * i % 255, 157 * i % 253) for i in range(1, {count + 1})]')
    found = []
    for index in range(count):
        strength = (0.85, 0.6)[index % 2]
        parts = colorsys.hsv_to_rgb(index * _GOLDEN % 1, strength, (0.9, 0.9, 0.65)[index % 3])
        found.append(tuple(round(255 * part) for part in parts))
    return found


def _fits(name: str, value: Sequence[Any]) -> bool:
    """Return whether a list fits into one line, or into one between its brackets."""
    flat = _flat(value)
    return len(f'{name} = {flat}') <= WIDTH or len(_INDENT + flat[1:-1]) <= WIDTH


def _has_settings(value: Sequence[Any]) -> bool:
    return any(isinstance(item, Mapping) for item in value)


def _flat(value: Any) -> str:
    if isinstance(value, Code):
        return str(value)
    if isinstance(value, Mapping):
        return f'dict({", ".join(f"{name}={_flat(item)}" for name, item in value.items())})'
    if isinstance(value, list):
        return f'[{", ".join(map(_flat, value))}]'
    if isinstance(value, tuple):
        return f'({", ".join(map(_flat, value))}{"," if len(value) == 1 else ""})'
    if isinstance(value, float):
        return number(value)
    return repr(value)


def _laid_out(lead: str, value: Any, depth: int, behind: int) -> str:
    """Return a value in one line, in one between its brackets, or an item a line.

    Args:
        lead: what stands before it in its first line.
        value: to be laid out.
        depth: of its line's indentation.
        behind: characters that follow in its last line.
    """
    indent = _INDENT * depth
    flat = f'{indent}{lead}{_flat(value)}'
    splits = isinstance(value, Mapping | list | tuple) and len(value) > 0
    if len(flat) + behind <= WIDTH or not splits:
        return flat
    opening, closing = 'dict(', ')'
    items = list(value.items()) if isinstance(value, Mapping) else [('', item) for item in value]
    if not isinstance(value, Mapping):
        opening, closing = ('[', ']') if isinstance(value, list) else ('(', ')')
    leads = [(f'{name}=' if name else '', item) for name, item in items]
    inner = ', '.join(f'{before}{_flat(item)}' for before, item in leads)
    body = f'{indent}{_INDENT}{inner}'
    if len(body) > WIDTH:
        body = '\n'.join(f'{_laid_out(before, item, depth + 1, 1)},' for before, item in leads)
    return f'{indent}{lead}{opening}\n{body}\n{indent}{closing}'


def _filled(value: Sequence[Any]) -> str:
    """Return a long list with as many items a line as fit."""
    opening, closing = ('[', ']') if isinstance(value, list) else ('(', ')')
    lines = ['']
    for item in map(_flat, value):
        if lines[-1] and len(f'{_INDENT}{lines[-1]} {item},') > WIDTH:
            lines.append('')
        lines[-1] += f' {item},' if lines[-1] else f'{item},'
    return '\n'.join([opening, *(f'{_INDENT}{line}' for line in lines), closing])
