"""Hooks that run in the loops of mmengine's Runner; importing this registers them."""

from mmwave.engine.data_checks.findings import DataError
from mmwave.engine.data_checks.hook import DataCheckHook

from .finite_loss import FiniteLossHook
from .first_view import FirstViewHook
from .load_report import LoadReportHook
from .picture_names import PictureNamesHook
from .resume_check import ResumeCheckHook
from .small_images import SmallImagesHook
from .sync_buffers import SyncBuffersHook

__all__ = [
    'DataCheckHook',
    'DataError',
    'FiniteLossHook',
    'FirstViewHook',
    'LoadReportHook',
    'PictureNamesHook',
    'ResumeCheckHook',
    'SmallImagesHook',
    'SyncBuffersHook',
]
