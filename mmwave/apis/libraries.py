"""The libraries that a config needs, looked for before one of them is imported."""

from importlib import metadata
from importlib.util import find_spec

from mmengine.config import Config

from mmwave.mmcv_ops import check_environment
from mmwave.mmcv_ops.environment import DISTRIBUTIONS

from .usage import INSTALL, UsageError


def check_libraries(cfg: Config) -> None:
    """Raise one line on a library that is missing, or half installed, before it is imported."""
    library = cfg.get('default_scope')
    if library not in ('mmdet', 'mmpretrain', 'mmseg'):
        check_environment()
        return
    if _is_missing(library):
        raise UsageError(f"this config needs {library}: pip install '{INSTALL[library]}'")
    check_environment(library)


def _is_missing(library: str) -> bool:
    """Return whether nothing of it is here, neither its files nor an entry of its installation."""
    try:
        if find_spec(library) is not None:
            return False
        metadata.version(DISTRIBUTIONS[library][0])
    except ValueError:  # how find_spec reports that an import is blocked
        return True
    except metadata.PackageNotFoundError:
        return True
    return False
