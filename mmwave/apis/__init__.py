"""Functions behind the tools; the only room that imports mmpretrain, mmdet and mmseg.

What needs torch and mmengine is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Not lazily: its module has the same name, and would replace this one when it is imported.
from .preflight import PreflightError, preflight
from .usage import UsageError

if TYPE_CHECKING:
    from .checking import CheckReport, check
    from .deploy import DeployedFile, deploy_checkpoint
    from .own_data.config import InitReport, init_config
    from .predicting.model import Model, load
    from .predicting.run import Predictions, predict
    from .publishing import PublishedFile, publish
    from .run import load_config, prepare_testing, prepare_training, test, train
    from .shorthands import Shorthands

_MODULES = {
    'CheckReport': 'checking',
    'check': 'checking',
    'DeployedFile': 'deploy',
    'InitReport': 'own_data.config',
    'PublishedFile': 'publishing',
    'Shorthands': 'shorthands',
    'deploy_checkpoint': 'deploy',
    'init_config': 'own_data.config',
    'Model': 'predicting.model',
    'Predictions': 'predicting.run',
    'load': 'predicting.model',
    'load_config': 'run',
    'predict': 'predicting.run',
    'prepare_testing': 'run',
    'prepare_training': 'run',
    'publish': 'publishing',
    'test': 'run',
    'train': 'run',
}

__all__ = [
    'CheckReport',
    'DeployedFile',
    'InitReport',
    'Model',
    'Predictions',
    'PreflightError',
    'PublishedFile',
    'Shorthands',
    'UsageError',
    'check',
    'deploy_checkpoint',
    'init_config',
    'load',
    'load_config',
    'predict',
    'preflight',
    'prepare_testing',
    'prepare_training',
    'publish',
    'test',
    'train',
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'.{_MODULES[name]}', __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
