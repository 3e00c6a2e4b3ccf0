"""Hooks that run in the loops of mmengine's Runner; importing this registers them."""

from mmwave.engine.checkpoints import CheckpointHook
from mmwave.engine.data_checks.findings import DataError
from mmwave.engine.data_checks.hook import DataCheckHook
from mmwave.engine.exact_resume.hook import ExactResumeHook
from mmwave.engine.watching.hook import WatchHook

from .agreement import AgreementHook
from .epoch_end import EpochEndHook
from .finite_loss import FiniteLossHook
from .finite_weights import FiniteWeightsHook, NotFiniteError
from .first_view import FirstViewHook
from .ignored_labels import IgnoredLabelsHook
from .load_report import LoadReportHook
from .loss_scale import LossScaleHook
from .picture_names import PictureNamesHook
from .plain_checkpoint import PlainCheckpointHook
from .preemption import PreemptionHook
from .provenance import ProvenanceHook
from .resume_check import ResumeCheckHook
from .small_images import SmallImagesHook
from .sync_buffers import SyncBuffersHook

__all__ = [
    'AgreementHook',
    'CheckpointHook',
    'DataCheckHook',
    'DataError',
    'EpochEndHook',
    'ExactResumeHook',
    'FiniteLossHook',
    'FiniteWeightsHook',
    'FirstViewHook',
    'IgnoredLabelsHook',
    'LoadReportHook',
    'LossScaleHook',
    'NotFiniteError',
    'PictureNamesHook',
    'PlainCheckpointHook',
    'PreemptionHook',
    'ProvenanceHook',
    'ResumeCheckHook',
    'SmallImagesHook',
    'SyncBuffersHook',
    'WatchHook',
]
