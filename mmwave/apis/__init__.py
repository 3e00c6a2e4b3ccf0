"""Functions behind the tools; the only room that imports mmpretrain, mmdet and mmseg.

What needs torch and mmengine is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Not lazily: its module has the same name, and would replace this one when it is imported.
from .preflight import PreflightError, preflight
from .usage import UsageError

if TYPE_CHECKING:
    from .deploy import DeployedFile, deploy_checkpoint
    from .run import load_config, prepare_testing, prepare_training, test, train
    from .shorthands import Shorthands

_MODULES = {
    'DeployedFile': 'deploy',
    'Shorthands': 'shorthands',
    'deploy_checkpoint': 'deploy',
    'load_config': 'run',
    'prepare_testing': 'run',
    'prepare_training': 'run',
    'test': 'run',
    'train': 'run',
}

__all__ = [
    'DeployedFile',
    'PreflightError',
    'Shorthands',
    'UsageError',
    'deploy_checkpoint',
    'load_config',
    'preflight',
    'prepare_testing',
    'prepare_training',
    'test',
    'train',
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_MODULES[name]}', __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
