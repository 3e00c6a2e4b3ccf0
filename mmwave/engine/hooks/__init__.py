"""Hooks that run in the loops of mmengine's Runner."""

from .data_check import DataCheckHook, DataError
from .load_report import LoadReportHook

__all__ = ['DataCheckHook', 'DataError', 'LoadReportHook']
