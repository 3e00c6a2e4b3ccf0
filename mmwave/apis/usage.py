"""What can be checked of a call before torch and mmengine are imported."""

import os.path as osp
from collections.abc import Iterator
from contextlib import contextmanager

from mmwave.errors import UserError

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
INSTALL = {
    **dict.fromkeys(('mmengine', 'numpy', 'safetensors', 'torch'), 'mmwave-suite'),
    **dict.fromkeys(('cv2', 'mmcv', 'torchvision'), 'mmwave-suite[mmcv]'),
    **dict.fromkeys(('matplotlib', 'timm'), 'mmwave-suite[bench]'),
    'mmdet': 'mmwave-suite[det]',
    'mmpretrain': 'mmwave-suite[cls]',
    'mmseg': 'mmwave-suite[seg]',
}
"""Library -> what to install for it."""


class UsageError(UserError):
    """A call that cannot be carried out as given; the message says what to give instead."""


class PreflightError(UserError):
    """A config that cannot run here; the message is one line and says what to change."""


def check_config_path(path: str) -> None:
    """Raise :class:`UsageError` where there is no such file, or it is no config by its name."""
    if not osp.isfile(path):
        raise UsageError(f'no such config: {path}')
    if not path.endswith(('.py', '.json', '.yaml', '.yml')):
        raise UsageError(f'{path} is no config: expected a .py, .json or .yaml file')


@contextmanager
def libraries_named() -> Iterator[None]:
    """Raise :class:`UsageError` where an import fails within, saying what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in INSTALL:
            raise
        raise UsageError(
            f"{error.name} is not installed: pip install '{INSTALL[error.name]}'"
        ) from error
