"""One line on a setting that a class refuses while it is built from a config."""

import inspect
import re
import traceback
from collections.abc import Mapping
from typing import Any

from mmwave.errors import printable

from .arguments import did_you_mean

_ARGUMENTS = re.compile(
    r"unexpected keyword argument '(\w+)'|missing \d+ required|must be callable"
)
_REGISTRY = re.compile(r"'?(\w+) is not in the ([^\n.]+?) registry")


def refused_setting(error: BaseException) -> str | None:
    """Return the line, None where the exception is none of a class that refuses its settings.

    What mmwave.apis.arguments does not look at, since nothing tells it the accepted names, is told
    here, and values out of their range; a mistake in the class itself (a TypeError or a KeyError of
    its code) is not.

    Args:
        error: raised while a runner was built, or the parts of it that are built later.
    """
    text = str(error)
    cls, settings = _built(error)
    if settings is None:
        return None
    kind = getattr(cls, '__name__', None) or settings.get('type')
    # Parameters are given by the program, and are no setting.
    shown = printable({k: v for k, v in settings.items() if k not in ('type', 'params')})
    where = f'in the settings of {printable(kind)}, {shown}'
    if isinstance(error, KeyError):
        found = _REGISTRY.search(text)
        if found is None:
            return None
        return f'{found[1]!r} is not registered ({found[2].strip(":")}), {where}'
    if isinstance(error, TypeError):
        found = _ARGUMENTS.search(text)
        if found is None:
            return None
        near = did_you_mean(found[1], _argument_names(cls)) if found[1] else ''
        return f'{_first_line(text)}{near}, {where}'
    if isinstance(error, ValueError | AssertionError) and text:
        return f'{_first_line(text)}, {where}'
    return None


def _built(error: BaseException) -> tuple[Any, Mapping[str, Any] | None]:
    """Return the innermost class that was being built, and its settings."""
    from mmengine.runner import LogProcessor  # what raises such an error has imported it

    found: tuple[Any, Mapping[str, Any] | None] = (None, None)
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == 'build_from_cfg':
            settings = frame.f_locals.get('cfg')
            if isinstance(settings, Mapping):
                found = frame.f_locals.get('obj_cls'), settings
        elif frame.f_code.co_name == 'build_log_processor':  # a default class is called directly
            settings = frame.f_locals.get('log_processor')
            if isinstance(settings, Mapping):
                found = LogProcessor, settings
        elif frame.f_code.co_name in ('run_iter', 'call_hook'):
            return None, None  # a step, or the work of a hook
    return found


def _argument_names(cls: Any) -> set[str]:
    """Return the names of arguments of a class and its bases, some of which may be hidden."""
    names: set[str] = set()
    for base in getattr(cls, '__mro__', ()):
        if '__init__' in vars(base) and base is not object:
            names |= set(inspect.signature(base).parameters)
    return names - {'self', 'args', 'kwargs'}


def _first_line(text: str) -> str:
    return printable(text.strip().splitlines()[0].rstrip('.'), 500)
