"""What a model of yours costs: parameters, multiply-accumulates, time and memory."""

from .complexity import count_macs, count_params
from .memory import held_bytes, peak_bytes, saved_bytes
from .model_info import ModelInfo, info
from .timing import Ratio, Timing, alternate, machine

__all__ = [
    'ModelInfo',
    'Ratio',
    'Timing',
    'alternate',
    'count_macs',
    'count_params',
    'held_bytes',
    'info',
    'machine',
    'peak_bytes',
    'saved_bytes',
]
