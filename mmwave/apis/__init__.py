"""Functions behind the tools; the only room that knows mmpretrain, mmdet and mmseg."""

from .deploy import DeployedFile, deploy_checkpoint
from .preflight import PreflightError, preflight
from .run import UsageError, load_config, prepare_testing, prepare_training, test, train

__all__ = [
    'DeployedFile',
    'PreflightError',
    'UsageError',
    'deploy_checkpoint',
    'load_config',
    'preflight',
    'prepare_testing',
    'prepare_training',
    'test',
    'train',
]
