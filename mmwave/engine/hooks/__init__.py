"""Hooks that run in the loops of mmengine's Runner; importing this registers them."""

from mmwave.engine.data_checks.findings import DataError
from mmwave.engine.data_checks.hook import DataCheckHook

from .epoch_end import EpochEndHook
from .finite_loss import FiniteLossHook
from .first_view import FirstViewHook
from .ignored_labels import IgnoredLabelsHook
from .load_report import LoadReportHook
from .loss_scale import LossScaleHook
from .picture_names import PictureNamesHook
from .resume_check import ResumeCheckHook
from .small_images import SmallImagesHook
from .sync_buffers import SyncBuffersHook

__all__ = [
    'DataCheckHook',
    'DataError',
    'EpochEndHook',
    'FiniteLossHook',
    'FirstViewHook',
    'IgnoredLabelsHook',
    'LoadReportHook',
    'LossScaleHook',
    'PictureNamesHook',
    'ResumeCheckHook',
    'SmallImagesHook',
    'SyncBuffersHook',
]
