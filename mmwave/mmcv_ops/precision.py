"""mmcv's compiled ops on float16 and bfloat16 of a CPU, unsupported by most of its kernels."""

import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from . import is_standing_in

# Module of mmcv.ops -> its ops -> the positions of the tensors that an op writes to.
_OPS: dict[str, dict[str, tuple[int, ...]]] = {
    'nms': {'nms': (), 'softnms': (2,)},
    'roi_align': {'roi_align_forward': (2, 3, 4), 'roi_align_backward': (4,)},
    'deform_conv': {
        'deform_conv_forward': (3,),
        'deform_conv_backward_input': (3, 4),
        'deform_conv_backward_parameters': (3,),
    },
    'modulated_deform_conv': {
        'modulated_deform_conv_forward': (6,),
        'modulated_deform_conv_backward': (7, 8, 9, 10, 11),
    },
}


def keep_detection_ops_in_float32() -> None:
    """Have mmcv's NMS, Soft-NMS, RoIAlign and deformable convolutions compute in float32.

    For tensors of float16 and bfloat16 on the CPU, as autocast makes them, in this process. Inputs
    are cast and outputs are cast back, so that what is around them sees the types that it would
    see on a GPU. Does nothing where torchvision serves the ops.
    """
    import mmcv.ops  # noqa: F401  fills sys.modules

    if is_standing_in():
        return
    for name, ops in _OPS.items():
        # Not an attribute of the package, which has functions of the same names.
        module: Any = sys.modules[f'mmcv.ops.{name}']
        if not isinstance(module.ext_module, _InFloat32):
            module.ext_module = _InFloat32(module.ext_module, ops)


class _InFloat32:
    """The compiled module, with some of its ops computed in float32."""

    def __init__(self, compiled: ModuleType, ops: dict[str, tuple[int, ...]]) -> None:
        self._compiled = compiled
        self._ops = ops

    def __getattr__(self, name: str) -> Any:
        if name.startswith('_'):  # pickle and copy look names up before the module is set
            raise AttributeError(name)
        op = getattr(self._compiled, name)
        return partial(_in_float32, op, self._ops[name]) if name in self._ops else op


def _in_float32(
    op: Callable[..., Tensor | None], outputs: tuple[int, ...], *tensors: Tensor, **settings: Any
) -> Tensor | None:
    wide = [t.float() if _is_low(t) else t for t in tensors]
    result = op(*wide, **settings)
    for i in outputs:
        if wide[i] is not tensors[i]:
            tensors[i].copy_(wide[i])
    return result


def _is_low(tensor: Tensor) -> bool:
    return tensor.is_cpu and tensor.dtype in (torch.bfloat16, torch.float16)
