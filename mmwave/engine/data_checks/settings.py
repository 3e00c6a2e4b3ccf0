"""The setting ``data_check`` of a config: the arguments of ``DataCheckHook``, or none of it."""

import inspect
from collections.abc import Mapping
from typing import Any

from mmwave.errors import UserError, printable

from .hook import DataCheckHook


def data_check_hooks(setting: Any) -> list[dict[str, Any]]:
    """Return the hooks, as a config lists them, that ``data_check`` stands for.

    Args:
        setting: True for the defaults, a dict of arguments of :class:`DataCheckHook`, False or None
            to check nothing and to skip nothing.

    Raises:
        UserError: where it is something else, or there is no such argument.
    """
    if setting is None or setting is False:
        return []
    if setting is True:
        setting = {}
    accepted = list(inspect.signature(DataCheckHook).parameters)
    if not isinstance(setting, Mapping):
        raise UserError(
            f'data_check={printable(repr(setting))} must be True, False or a dict of '
            f'{", ".join(accepted)}'
        )
    unknown = [printable(name) for name in setting if name not in accepted]
    if unknown:
        raise UserError(
            f'data_check has no {", ".join(unknown)}: accepted are {", ".join(accepted)}'
        )
    try:
        DataCheckHook(**setting)
    except UserError as error:
        raise UserError(f'data_check: {error}') from None
    return [dict(type='mmwave.DataCheckHook', **setting)]
