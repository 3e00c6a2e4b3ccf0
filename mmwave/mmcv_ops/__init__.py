"""mmcv's compiled ops by torchvision, where mmcv was installed without them.

mmcv's Python functions call a compiled module, ``mmcv._ext``, which takes minutes to build and is
in no wheel of it. Importing this package appends a finder to ``sys.meta_path`` that answers for
this name alone, after all others: a compiled module is always preferred, and nothing is imported
before somebody asks for ``mmcv._ext``. A few modules of mmdet and mmseg decide at their import to
do without ops where ``mmcv.ops`` cannot be imported, so import this one before them.
"""

import sys
from importlib.machinery import ModuleSpec
from os import path

from .environment import check_environment, check_ops

NAME = 'mmcv._ext'
_STAND_IN = path.join(path.dirname(path.abspath(__file__)), 'torchvision_ops.py')


class _Finder:
    """Find ``mmcv._ext`` in the file beside this one; last in ``sys.meta_path``."""

    stands_in_for = NAME

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != NAME:
            return None
        from importlib.util import find_spec, spec_from_file_location

        # Without torchvision, mmcv is what it is without mmwave: mmseg, for one, has a way around.
        if find_spec('torchvision') is None:
            return None
        return spec_from_file_location(name, _STAND_IN)


def is_standing_in() -> bool:
    """Return whether ``mmcv._ext`` has been imported and is torchvision's ops."""
    return getattr(sys.modules.get(NAME), '__file__', None) == _STAND_IN


def _warn_if_late() -> None:
    """Say so where modules have settled for no ops; they would raise in the middle of training."""
    settled = {'mmdet.structures.mask.structures', 'mmseg.models.losses.focal_loss'}
    if 'mmcv.ops' not in sys.modules and (names := settled & sys.modules.keys()):
        import warnings

        warnings.warn(
            f'{min(names)} was imported before mmwave, when there were no ops of mmcv: '
            'import mmwave first',
            stacklevel=3,
        )


_warn_if_late()
# A module that is reloaded has another class of the same name.
if not any(getattr(finder, 'stands_in_for', None) == NAME for finder in sys.meta_path):
    sys.meta_path.append(_Finder())

__all__ = ['check_environment', 'check_ops', 'is_standing_in']
