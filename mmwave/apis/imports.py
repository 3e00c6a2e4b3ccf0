"""Modules that a config imports and Python does not find."""

import os.path as osp
import shlex
from collections.abc import Iterator

from mmwave.errors import printable, printable_path

from .usage import INSTALL, UsageError

_MOST_PARENTS = 4


def missing_module(config: str, error: ImportError) -> ImportError | UsageError:
    """Return what to raise where reading a config ended in an import that failed.

    Args:
        config: path of the config, which imports modules itself or by ``custom_imports``.
        error: what was raised; mmengine's own hides which module of several is missing.

    Returns:
        One line that says which ``PYTHONPATH`` finds the module; the error itself where a library
        is missing that is installed, not found.
    """
    while not isinstance(error, ModuleNotFoundError) and isinstance(error.__context__, ImportError):
        error = error.__context__
    name = error.name
    if not isinstance(error, ModuleNotFoundError) or not name:
        return UsageError(f'{printable_path(config)}: {printable(error, 500)}')
    if name in INSTALL:
        return error
    text = f'{printable_path(config)} imports {printable(name)}, which Python does not find'
    found = next(_folders_with(name, config), None)
    if found is None:
        return UsageError(
            f'{text}, nor is it beside the config, above it or here: install it, or set PYTHONPATH '
            f'to the folder that holds {printable(name.partition(".")[0])}'
        )
    return UsageError(f'{text}: set PYTHONPATH={shlex.quote(found)}')


def _folders_with(name: str, config: str) -> Iterator[str]:
    """Yield the folders near a config, and the current one, from which a module is importable."""
    folder = osp.dirname(osp.abspath(config))
    near = []
    for _ in range(_MOST_PARENTS):
        near.append(folder)
        folder = osp.dirname(folder)
    path = osp.join(*name.split('.'))
    for folder in (*near, osp.abspath(osp.curdir)):
        whole = osp.join(folder, path)
        if osp.isfile(f'{whole}.py') or osp.isfile(osp.join(whole, '__init__.py')):
            yield folder
