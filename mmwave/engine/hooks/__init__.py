"""Hooks that run in the loops of mmengine's Runner; importing this registers them."""

from mmwave.engine.checkpoints import CheckpointHook
from mmwave.engine.data_checks.findings import DataError
from mmwave.engine.data_checks.hook import DataCheckHook
from mmwave.engine.exact_resume.hook import ExactResumeHook
from mmwave.engine.watching.hook import WatchHook

from .agreement import AgreementHook
from .finite_weights import FiniteWeightsHook, NotFiniteError
from .first_view import FirstViewHook
from .load_report import LoadReportHook
from .picture_names import PictureNamesHook
from .preemption import PreemptionHook
from .resume_check import ResumeCheckHook
from .small_images import SmallImagesHook
from .sync_buffers import SyncBuffersHook

__all__ = [
    'AgreementHook',
    'CheckpointHook',
    'DataCheckHook',
    'DataError',
    'ExactResumeHook',
    'FiniteWeightsHook',
    'FirstViewHook',
    'LoadReportHook',
    'NotFiniteError',
    'PictureNamesHook',
    'PreemptionHook',
    'ResumeCheckHook',
    'SmallImagesHook',
    'SyncBuffersHook',
    'WatchHook',
]
