"""Hooks that run in the loops of mmengine's Runner."""

from .data_check import DataCheckHook, DataError
from .load_report import LoadReportHook
from .resume_check import ResumeCheckHook
from .sync_buffers import SyncBuffersHook

__all__ = ['DataCheckHook', 'DataError', 'LoadReportHook', 'ResumeCheckHook', 'SyncBuffersHook']
