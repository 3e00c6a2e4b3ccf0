"""Tensor functions with more than one implementation; see :mod:`mmwave.ops.backend`.

The public functions are those exported here. An op's implementations live in a private package of
its name (``_phase_mix/``), so that no name is a function and a module at once.
"""

from ._axial_sample import axial_sample
from ._axial_shift import axial_shift
from ._blend import blend_
from ._conv2d import conv2d
from ._gelu import gelu_
from ._linear import linear
from ._linear_phase_mix import linear_phase_mix
from ._mlp_add import mlp_add_
from ._patches import patches
from ._phase_mix import phase_mix
from ._spatial_fc import spatial_fc
from .backend import current_backend, use_backend
from .positional_kernel import positional_kernel

__all__ = [
    'axial_sample',
    'axial_shift',
    'blend_',
    'conv2d',
    'current_backend',
    'gelu_',
    'linear',
    'linear_phase_mix',
    'mlp_add_',
    'patches',
    'phase_mix',
    'positional_kernel',
    'spatial_fc',
    'use_backend',
]
