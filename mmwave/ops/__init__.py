"""Tensor functions that more than one implementation may compute; see :mod:`mmwave.ops.backend`."""

from .backend import current_backend, use_backend
from .blend import blend_
from .conv2d import conv2d
from .gelu import gelu_
from .linear import linear
from .linear_phase_mix import linear_phase_mix
from .mlp_add import mlp_add_
from .patches import patches
from .phase_mix import phase_mix
from .spatial_fc import spatial_fc

__all__ = [
    'blend_',
    'conv2d',
    'current_backend',
    'gelu_',
    'linear',
    'linear_phase_mix',
    'mlp_add_',
    'patches',
    'phase_mix',
    'spatial_fc',
    'use_backend',
]
