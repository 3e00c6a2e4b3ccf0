"""Which functions of torch's and of ours are recomputed, and which are products."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmwave.ops import axial_sample, axial_shift, conv2d, linear, patches, phase_mix

# batch_norm_elemt ends torch.nn.SyncBatchNorm's forward: what the ranks exchanged is its input.
_NORMS = 'batch_norm batch_norm_elemt group_norm layer_norm rms_norm'
_ACTIVATIONS = """
    celu clamp elu gelu hardsigmoid hardswish hardtanh leaky_relu logsigmoid mish prelu relu relu6
    selu sigmoid silu softmax softplus softsign tanh
"""
_ARITHMETIC = 'addcmul cos div mul reciprocal sin to'
_COPIES = 'cat clone contiguous flatten pad reshape roll'
_FLOAT32 = 'group_norm layer_norm reciprocal rms_norm softmax softplus'
_PRODUCTS = 'baddbmm bmm conv2d linear matmul __matmul__'


def _functions(names: str) -> frozenset[Callable[..., Any]]:
    """Torch's functions and methods of these names, under every name that a mode sees them by."""
    spaces = (torch, Tensor, F, torch._C._nn)
    return frozenset(
        getattr(space, name) for name in names.split() for space in spaces if hasattr(space, name)
    )


CHEAP = _functions(f'{_NORMS} {_ACTIVATIONS} {_ARITHMETIC} {_COPIES}')
"""Functions whose outputs are recomputed: without random numbers and quick beside a product.

Sums are none of them: a block's shortcut is stored, so that no recomputation reaches beyond it.
"""
CHEAP -= {torch.batch_norm}  # its arguments differ from F.batch_norm's, which layers call
CHEAP_OPS = frozenset({axial_sample, axial_shift, patches, phase_mix})
"""Likewise of :mod:`mmwave.ops`. What they store themselves may be recomputed as well."""
WITHOUT_GRADIENT = frozenset({patches, torch.batch_norm_elemt})
"""Functions whose outputs are recomputed even where they need no gradient.

Patches of an image need none, but the norm behind them saves them for its own; batch_norm_elemt
runs in a ``torch.autograd.Function``, where autograd is off.
"""
COPIES = _functions(f'{_COPIES} to')
"""Functions whose outputs are recomputed only where that saves memory."""
MUL = _functions('mul')
ACTIVATIONS = _functions(_ACTIVATIONS)
"""Stored, not recomputed, where they are factors of :data:`MUL`, as in gated MLPs.

The gated product is recomputed from them. Recomputing them as well would save a quarter of what
gMLP stores, for 5 to 9 % of its time.
"""
PRODUCTS = _functions(_PRODUCTS) | {conv2d, linear}
"""Functions that autocast casts to half precision: products, that is.

Ours are seen as one call: what they look at on the way would be seen one by one, at 2 us each.
"""
FLOAT32 = _functions(_FLOAT32)
"""Of :data:`CHEAP`, those that autocast runs in float32 on a CUDA device."""
