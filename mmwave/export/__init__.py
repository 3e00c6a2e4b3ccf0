"""Models as files for other runtimes, each run and compared before it is called good."""

from .api import DifferenceError, ExportedFile, export_model
from .compare import LIMIT, Comparison

__all__ = ['LIMIT', 'Comparison', 'DifferenceError', 'ExportedFile', 'export_model']
