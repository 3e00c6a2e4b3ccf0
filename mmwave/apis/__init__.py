"""Functions behind the tools; the only room that knows mmpretrain, mmdet and mmseg."""

from .preflight import PreflightError, preflight
from .run import UsageError, load_config, test, train

__all__ = ['PreflightError', 'UsageError', 'load_config', 'preflight', 'test', 'train']
