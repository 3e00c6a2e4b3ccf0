"""Algebra that turns a train form's tensors into a deploy form's.

Pure functions on tensors. They compute in float64 on the host, whatever their inputs, so that
folding costs no accuracy and works where a device has no float64; results have the dtype and the
device of the weight.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def _wide(tensor: Tensor) -> Tensor:
    return tensor.detach().to('cpu', torch.float64)


def norm_affine(
    weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Return scale and shift per channel, both (C,), of a batch norm in eval mode.

    The norm maps channel c of x to ``scale[c] * x + shift[c]``.

    Args:
        weight: (C,), the norm's own factor.
        bias: (C,), its own offset.
        mean: (C,), running mean.
        var: (C,), running variance.
        eps: what it adds to the variance.
    """
    scale = _wide(weight) / torch.sqrt(_wide(var) + eps)
    shift = _wide(bias) - _wide(mean) * scale
    return scale.to(weight), shift.to(weight)


def fuse_norm_after(
    weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a layer with the norm after it folded in.

    Args:
        weight: (O, ...), of a convolution, grouped or not, or of a linear layer.
        bias: (O,), or None for none.
        scale: (O,), of :func:`norm_affine`.
        shift: (O,).
    """
    wide = _wide(weight) * _wide(scale).reshape(-1, *[1] * (weight.dim() - 1))
    offset = _wide(shift)
    if bias is not None:
        offset = offset + _wide(bias) * _wide(scale)
    return wide.to(weight), offset.to(weight)


def fuse_norm_before(
    weight: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a layer with the norm before it folded in.

    Args:
        weight: (O, C) of a linear layer, or (O, C, 1, 1) of a convolution without groups.
        bias: (O,), or None for none.
        scale: (C,), of :func:`norm_affine`.
        shift: (C,).

    Raises:
        ValueError: for a kernel larger than 1 x 1: its input is padded by zeros after the norm, so
            that no bias can replace the shift at the borders.
    """
    if weight[0, 0].numel() != 1:
        raise ValueError(
            f'a norm folds into a 1 x 1 kernel behind it, not into one of shape '
            f'{tuple(weight.shape)}'
        )
    matrix = _wide(weight).flatten(1)
    offset = matrix @ _wide(shift)
    if bias is not None:
        offset = offset + _wide(bias)
    wide = (matrix * _wide(scale)).reshape(weight.shape)
    return wide.to(weight), offset.to(weight)


def pad_kernel(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a kernel (O, I, k_h, k_w) padded by zeros to (O, I, *size), the same convolution.

    Raises:
        ValueError: where ``size`` is smaller, or does not leave the kernel's centre in the middle.
    """
    margins = [wanted - given for wanted, given in zip(size, kernel.shape[2:], strict=True)]
    if any(margin < 0 or margin % 2 for margin in margins):
        raise ValueError(
            f'a kernel of {tuple(kernel.shape[2:])} cannot stand in the middle of {size}'
        )
    top, left = (margin // 2 for margin in margins)
    return F.pad(kernel, (left, left, top, top))


def conv_to_fc(kernel: Tensor, window: Sequence[int]) -> Tensor:
    """Return the matrices that compute a depthwise convolution on a window padded by zeros.

    Row (y, x) of matrix s holds what the positions of a window weigh in output (y, x) of channel s:
    ``out[s].flatten() == matrix[s] @ window[s].flatten()``.

    Args:
        kernel: (S, 1, k_h, k_w), both odd; stride 1, padded by half of it on every side.
        window: height h and width w in positions.

    Returns:
        (S, h * w, h * w).

    Raises:
        ValueError: where the kernel is not depthwise or has an even side.
    """
    if kernel.shape[1] != 1 or any(side % 2 == 0 for side in kernel.shape[2:]):
        raise ValueError(
            f'expected a depthwise kernel (S, 1, k_h, k_w) of odd sides, got {tuple(kernel.shape)}'
        )
    h, w = window
    reach_y, reach_x = (side // 2 for side in kernel.shape[2:])
    wide = _wide(kernel)[:, 0]
    matrix = wide.new_zeros(len(kernel), h, w, h, w)
    for dy in range(-min(reach_y, h - 1), min(reach_y, h - 1) + 1):
        for dx in range(-min(reach_x, w - 1), min(reach_x, w - 1) + 1):
            # Outputs (y, x) whose neighbour (y + dy, x + dx) lies inside the window.
            y = torch.arange(max(-dy, 0), min(h - dy, h))[:, None]
            x = torch.arange(max(-dx, 0), min(w - dx, w))[None]
            tap = wide[:, reach_y + dy, reach_x + dx]
            matrix[:, y, x, y + dy, x + dx] = tap[:, None, None]
    return matrix.reshape(len(kernel), h * w, h * w).to(kernel)
