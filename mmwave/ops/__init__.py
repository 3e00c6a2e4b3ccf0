"""Tensor functions that more than one implementation may compute; see :mod:`mmwave.ops.backend`."""

from .backend import current_backend, use_backend
from .conv2d import conv2d
from .linear import linear
from .patches import patches
from .phase_mix import phase_mix
from .spatial_fc import spatial_fc

__all__ = [
    'conv2d',
    'current_backend',
    'linear',
    'patches',
    'phase_mix',
    'spatial_fc',
    'use_backend',
]
