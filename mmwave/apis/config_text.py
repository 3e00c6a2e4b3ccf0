"""The text of a config: read without running it, and without the places of one machine."""

import ast
import ntpath
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

_MAX_TEXT = 1 << 20  # characters
# Of one call and one machine.
_OF_THE_CALL = ('work_dir', 'load_from', 'resume', 'launcher', 'local_rank')


def read_config_text(text: Any) -> dict[str, Any] | None:
    """Return the settings in a config's text, which a checkpoint holds, without running it.

    Args:
        text: assignments of plain values, as mmengine's ``Config.pretty_text`` writes them.

    Returns:
        None where it is anything else.
    """
    if not isinstance(text, str) or not text or len(text) > _MAX_TEXT:
        return None
    try:
        settings = {}
        for node in ast.parse(text).body:
            if not isinstance(node, ast.Assign):
                return None
            (target,) = node.targets
            if not isinstance(target, ast.Name):
                return None
            settings[target.id] = _value(node.value)
        return settings
    except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
        return None


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id != 'dict':
            raise ValueError('a call')
        found = {}
        for given in node.args:  # of keys that are no words
            if not isinstance(given, ast.Dict):
                raise ValueError('a dict of something else')
            found |= _value(given)
        return found | {_word(item): _value(item.value) for item in node.keywords}
    if isinstance(node, ast.Dict):
        keys = [_literal(key) for key in node.keys]
        return dict(zip(keys, map(_value, node.values), strict=True))
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        kind = {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)]
        return kind(map(_value, node.elts))
    if isinstance(node, ast.Name) and node.id in ('inf', 'nan'):
        return float(node.id)
    return _literal(node)


def _word(item: ast.keyword) -> str:
    if item.arg is None:
        raise ValueError('an unpacked dict')
    return item.arg


def _literal(node: ast.expr | None) -> Any:
    if node is None:
        raise ValueError('an unpacked dict')
    return ast.literal_eval(node)


def without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config's settings without the places of the machine that it was used on.

    The work folder, ``load_from`` and ``resume`` are left out. Of an absolute path what follows the
    folder that holds its data root is kept, else its last part; other texts stay.

    Args:
        settings: of a config; not changed.
    """
    kept = {key: value for key, value in settings.items() if key not in _OF_THE_CALL}
    roots = {posixpath.normpath(root) for root in _data_roots(kept)}
    # The innermost of several.
    ordered = sorted(roots, key=len, reverse=True)
    return _replaced(kept, ordered)


def config_text(settings: Mapping[str, Any]) -> str:
    """Return settings as mmengine writes a config."""
    return str(Config(dict(settings)).pretty_text)


def _data_roots(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == 'data_root' and isinstance(value, str) and _is_absolute(value):
                yield value
            yield from _data_roots(value)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from _data_roots(item)


def _replaced(node: Any, roots: list[str]) -> Any:
    if isinstance(node, Mapping):
        return {_replaced(key, roots): _replaced(value, roots) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return type(node)(_replaced(item, roots) for item in node)
    if isinstance(node, str) and _is_absolute(node):
        return _portable(node, roots)
    return node


def _portable(path: str, roots: list[str]) -> str:
    slash = '/' if path.endswith('/') else ''
    normal = posixpath.normpath(path)
    for root in roots:
        if normal == root or normal.startswith(f'{root}/'):
            return posixpath.relpath(normal, posixpath.dirname(root)) + slash
    return ntpath.basename(normal) + slash  # knows both kinds of slashes


def _is_absolute(text: str) -> bool:
    if len(text) < 2 or '\n' in text:
        return False
    drive = ntpath.splitdrive(text)[0]
    return text.startswith(('/', '~', 'file:')) or (bool(drive) and ntpath.isabs(text))
