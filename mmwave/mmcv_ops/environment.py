"""What is wrong with an installation, in one line that says how to mend it."""

import os
import re
import sys
from types import ModuleType
from typing import NoReturn

from mmwave.errors import UserError, printable

_BUILD = '`make env MMCV_OPS=1` builds them; with pip see docs/install.md'
# Module -> the distribution of it that mmwave is tested with, and others of the same files.
DISTRIBUTIONS = {
    'mmengine': ('onedl-mmengine', 'mmengine', 'mmengine-lite'),
    'mmcv': ('onedl-mmcv', 'mmcv', 'mmcv-full', 'mmcv-lite'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
}


class MissingOpError(UserError, NotImplementedError):
    """An op of mmcv's that is not here; the message names it and says how to get it."""


class MissingOp:
    """Stand in for an op of which nothing is needed but its name, and raise when called."""

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __repr__(self) -> str:
        return f'{type(self).__name__}({self.__name__!r})'

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        raise MissingOpError(
            f'{self.__name__}: this mmcv was installed without its compiled ops, and torchvision '
            f'serves only some of them, not this one: {_BUILD}'
        )


def check_environment(*libraries: str) -> None:
    """Check which distributions are installed, by their metadata alone: nothing is imported.

    Args:
        libraries: what is going to be used, of mmdet, mmseg and mmpretrain.

    Raises:
        UserError: where a library, or mmcv, is missing; where two distributions hold the same
            files, OpenMMLab's and its successor's; where torchvision is not of this torch, or is
            missing where it has to serve mmcv's ops.
    """
    for module in dict.fromkeys(('mmengine', 'mmcv', *libraries)):
        _check_single(module)
    for module in dict.fromkeys(['mmcv', *libraries] if libraries else []):
        _check_files(module)
    if libraries and not _has_compiled_ops():
        _check_torchvision(needed='mmdet' in libraries)


def check_ops(device: str) -> None:
    """Import mmcv's ops, and check that they run on this kind of device.

    Args:
        device: ``'cuda'`` or another.

    Raises:
        UserError: where they cannot be imported, or have no part for CUDA.
    """
    try:
        from mmcv.ops import get_compiling_cuda_version
    except UserError:
        raise
    except Exception as error:  # whatever a half-installed package raises at its import
        reason = printable((str(error).splitlines() or [''])[0])
        cure = (
            'were they compiled for another torch? `make env MMCV_OPS=1` builds them again'
            if _has_compiled_ops()
            else 'install mmwave again with its dependencies (docs/install.md)'
        )
        raise UserError(
            f"mmcv's ops cannot be imported ({type(error).__name__}: {reason}): {cure}"
        ) from error
    if device != 'cuda' or get_compiling_cuda_version() != 'not available':
        return
    from . import is_standing_in

    if is_standing_in() and _runs_on_gpus():
        return
    cure = 'or hide the GPUs with CUDA_VISIBLE_DEVICES= to run on the CPU'
    if is_standing_in():
        raise UserError(
            f'this torchvision ({_version("torchvision")}) was built without CUDA ops, which '
            f'detectors need on a GPU: install the one that was built with torch '
            f'{_version("torch")}, {cure}'
        )
    raise UserError(
        'this mmcv was built without CUDA ops, which detectors need on a GPU: build it again with '
        f'nvcc on the path (docs/install.md), {cure}'
    )


def _runs_on_gpus() -> bool:
    """Return whether torchvision has ops for GPUs: built for ROCm, it states no CUDA version."""
    import torch

    return bool(torch._C._dispatch_has_kernel_for_dispatch_key('torchvision::nms', 'CUDA'))


def import_torchvision() -> ModuleType:
    """Import torchvision and its ops.

    Raises:
        UserError: where they do not work with this torch; their own messages are of many lines.
    """
    try:
        import torch
        import torchvision

        assert torch.ops.torchvision.nms
    except (AttributeError, ImportError, OSError, RuntimeError) as error:
        _check_torchvision(needed=True)
        reason = printable((str(error).splitlines() or [''])[0])
        raise UserError(
            f'{_torchvision()} ({type(error).__name__}: {reason}): {_matching()}'
        ) from error
    return torchvision


def _version(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _folder(distribution: str, module: str) -> str:
    """Return where a distribution stores its part of ``module``."""
    from importlib.metadata import distribution as metadata_of

    return os.path.realpath(str(metadata_of(distribution).locate_file(module)))


def _check_single(module: str) -> None:
    """Refuse two distributions of one module."""
    found = {name: version for name in DISTRIBUTIONS[module] if (version := _version(name))}
    if len(found) < 2 or len({_folder(name, module) for name in found}) == len(found):
        return  # in folders of their own, one of which comes first on Python's path
    keep, *others = found
    names = ' and '.join(f'{name} {version}' for name, version in found.items())
    raise UserError(
        f'{names} are installed together and overwrite each other: uninstall '
        f'{" and ".join(others)}, then install {keep} again (pip uninstall -y {" ".join(others)}; '
        f'pip install --force-reinstall --no-deps {keep}=={found[keep]})'
    )


def _check_files(module: str) -> None:
    """Refuse a module that is missing, or of which only leftovers are here."""
    from importlib.util import find_spec

    try:
        spec = find_spec(module)
    except ValueError:  # imported, and blocked by None or without a spec
        spec = None
    if spec is not None and spec.origin is not None:
        return
    distribution = next((n for n in DISTRIBUTIONS.get(module, ()) if _version(n)), None)
    if distribution is not None:
        raise UserError(
            f'{distribution} is installed, but {module} cannot be found: its files were removed '
            f'with another package: install it again (pip install --force-reinstall --no-deps '
            f'{distribution}=={_version(distribution)})'
        )
    name = DISTRIBUTIONS.get(module, (module,))[0]
    raise UserError(f'{module} is not installed: install {name} (docs/install.md says how)')


def _has_compiled_ops() -> bool:
    """Return whether the installed mmcv has them; it is not imported."""
    from importlib.machinery import PathFinder
    from importlib.util import find_spec

    if 'mmcv' in sys.modules:
        folders = getattr(sys.modules['mmcv'], '__path__', ())
    else:
        spec = find_spec('mmcv')
        folders = (spec and spec.submodule_search_locations) or ()
    return bool(folders) and PathFinder.find_spec('mmcv._ext', folders) is not None


def _check_torchvision(needed: bool) -> None:
    """Refuse a torchvision of another torch: each states the versions that it works with."""
    from importlib.metadata import requires

    torch = _version('torch')
    if torch is None:
        return
    if _version('torchvision') is None:
        if needed:
            raise UserError(f"torchvision is missing, whose ops serve for mmcv's: {_matching()}")
        return
    for line in requires('torchvision') or ():
        # That of 0.28 says "torch (==2.13.0)", that of 0.29.2 "torch (>=2.14.0)".
        match = re.match(r'torch\s*\(?\s*([=<>!~][^;)]*)\)?\s*(?!.*extra)', line)
        if match and not _allows(match[1].strip(), torch):
            raise UserError(f'{_torchvision()}, but with torch {match[1].strip()}: {_matching()}')


def _allows(specifier: str, version: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return True
    allowed = SpecifierSet(specifier)
    versions = (version, version.partition('+')[0])
    return any(allowed.contains(given, prereleases=True) for given in versions)


def _torchvision() -> str:
    return f'torchvision {_version("torchvision")} does not work with torch {_version("torch")}'


def _matching() -> str:
    """Say how to install the torchvision of this torch."""
    torch = _version('torch')
    return (
        f"install its own, from where torch {torch} came (pip install 'torch=={torch}' torchvision)"
    )
