"""The configs that are shipped, found by name from any folder."""

import functools
import os.path as osp
from pathlib import Path

import mmwave

from .usage import UsageError, close_names

SUFFIXES = ('.py', '.json', '.yaml', '.yml')


@functools.cache
def configs_folder() -> Path | None:
    """Return the folder of the shipped configs: in a checkout beside the package, else inside."""
    return _shipped('configs', '_base_')


def tools_folder() -> Path | None:
    """Return the folder of the scripts and launchers, which lies beside that of the configs."""
    return _shipped('tools', 'launch.sh')


def _shipped(name: str, holding: str) -> Path | None:
    package = Path(mmwave.__file__).parent
    folders = (package.parent / name, package / '.mim' / name)
    return next((folder for folder in folders if (folder / holding).exists()), None)


@functools.cache
def config_files() -> dict[str, Path]:
    """Return the path of each shipped config by its name, which is the file's without suffix."""
    folder = configs_folder()
    if folder is None:
        return {}
    return {path.stem: path for path in sorted(folder.glob('[!_]*/*.py'))}


def find_config(name: str) -> str:
    """Return the path of a config.

    Args:
        name: a path; else that of a shipped config, ``configs/wavemlp/wavemlp-t_in1k.py``, with or
            without folders and suffix.

    Raises:
        UsageError: where there is none, or the file is no config by its suffix.
    """
    if osp.isfile(name):
        if not name.endswith(SUFFIXES):
            raise UsageError(f'{name} is no config: expected a .py, .json or .yaml file')
        return name
    path = Path(name)
    stem = path.name.removesuffix('.py')
    found = config_files().get(stem)
    # Its folders are those of the checkout, or a part of them.
    if found is not None and found.with_suffix('').parts[-len(path.parts) :] == (
        *path.parts[:-1],
        stem,
    ):
        return str(found)
    hint = close_names(stem, config_files())
    raise UsageError(f'no such config: {name}' + (f'; {hint}' if hint else ''))
