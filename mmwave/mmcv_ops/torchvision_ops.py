"""The ops of ``mmcv._ext`` that mmwave's tasks need, by torchvision and plain torch.

Signatures, order of outputs and limits (which comparison is strict, what is clamped) are those of
onedl-mmcv 2.3.6, ``mmcv/ops/csrc/pytorch``, since its functions in Python call these in place of
the compiled ones: outputs are tensors that the caller has allocated, gradients are accumulated
into them. The calls that torchvision registers are those of ``torch.ops.torchvision``.

Two rules hold for all. float16 and bfloat16 are computed in float32, whatever the other inputs
are, and rounded once, when the output is written. Autograd and autocast are off, as they are
inside compiled code.

Imported under the name ``mmcv._ext``: names are absolute, and every public name that is not
defined here exists, and says when it is called that it is missing.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmwave.mmcv_ops.environment import MissingOp, import_torchvision

torchvision = import_torchvision()

_LOW = (torch.float16, torch.bfloat16)
# Farther outside of any image than a sample is ever taken, and exact in float32.
_OUTSIDE = 1e6
_LOG_FLOAT_MIN = math.log(torch.finfo(torch.float32).tiny)

_P = ParamSpec('_P')
_T = TypeVar('_T')


def __getattr__(name: str) -> MissingOp:
    if name.startswith('_'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return MissingOp(name)


def get_compiler_version() -> str:
    """Return what mmcv's environment report prints as the compiler of its ops."""
    return f"none: torchvision {torchvision.__version__} serves mmcv's ops"


def get_compiling_cuda_version() -> str:
    """Return the CUDA version that torchvision was built with, or ``'not available'``."""
    version = int(torch.ops.torchvision._cuda_version())
    return 'not available' if version < 0 else f'{version // 1000}.{version % 1000 // 10}'


def _kernel(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Call ``function`` as compiled code is called: without autograd and autocast."""

    @wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        tensors = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        with torch.no_grad(), torch.autocast(next(tensors).device.type, enabled=False):
            return function(*args, **kwargs)

    return called


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in _LOW else tensor


def _wide_as(first: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
    first = _wide(first)
    return first, *(tensor.to(first.dtype) for tensor in rest)


def _check_shape(what: str, tensor: Tensor, columns: int) -> None:
    if tensor.dim() != 2 or tensor.size(1) != columns:
        raise ValueError(f'{what} must be of shape (N, {columns}), not {tuple(tensor.shape)}')


def _check_boxes(boxes: Tensor, scores: Tensor) -> None:
    _check_shape('boxes', boxes, 4)
    if scores.shape != boxes.shape[:1]:
        raise ValueError(
            f'expected a score for each of {len(boxes)} boxes, not scores of shape '
            f'{tuple(scores.shape)}'
        )


@_kernel
def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices of the boxes to keep, those of higher scores first.

    Args:
        boxes: (N, 4) as x1, y1, x2, y2.
        scores: (N,).
        iou_threshold: boxes are dropped whose IoU with a kept one is above it.
        offset: what a box's width exceeds x2 - x1 by: 0, or 1 where x2 is its last pixel.
    """
    _check_boxes(boxes, scores)
    boxes, scores = _wide(boxes), _wide(scores)
    dtype = torch.promote_types(boxes.dtype, scores.dtype)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    # mmcv compares in the boxes' type: 0.6 of float32 is above 0.6, though not above itself.
    if dtype is torch.float32:
        iou_threshold = float(np.float32(iou_threshold))
    # The sort that mmcv does, and so its order of boxes of one score; torchvision's is stable.
    order = scores.sort(0, descending=True).indices
    boxes = boxes[order]
    if offset == 0:
        ranks = torch.arange(len(boxes), 0, -1, dtype=dtype, device=boxes.device)
        return order[torch.ops.torchvision.nms(boxes, ranks, iou_threshold)]
    keep = _greedy(boxes.cpu().numpy(), iou_threshold, offset)
    return order[torch.from_numpy(keep).to(order.device)]


def _greedy(boxes: NDArray[Any], iou_threshold: float, offset: int) -> NDArray[np.int64]:
    """Return the positions to keep of boxes that are sorted by their scores."""
    areas = _areas(boxes, offset)
    alive = np.ones(len(boxes), dtype=bool)
    for i in range(len(boxes)):
        if alive[i]:
            alive[i + 1 :] &= ~(_ious(boxes, areas, i, offset) > iou_threshold)
    return np.flatnonzero(alive)


@np.errstate(all='ignore')
def _areas(boxes: NDArray[Any], offset: int) -> NDArray[Any]:
    x1, y1, x2, y2 = boxes.T
    return (x2 - x1 + offset) * (y2 - y1 + offset)


@np.errstate(all='ignore')
def _ious(boxes: NDArray[Any], areas: NDArray[Any], i: int, offset: int) -> NDArray[Any]:
    """Return the IoU of box ``i`` with each box behind it; NaN of two empty boxes."""
    rest = boxes[i + 1 :]
    low = np.maximum(boxes[i, :2], rest[:, :2])
    high = np.minimum(boxes[i, 2:], rest[:, 2:])
    width, height = np.maximum(high - low + offset, 0).T
    intersection = width * height
    return intersection / (areas[i] + areas[i + 1 :] - intersection)


@_kernel
def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Lower the scores of overlapping boxes, best first (Soft-NMS, Bodla et al., ICCV 2017).

    Args:
        boxes: (N, 4).
        scores: (N,).
        dets: (N, 5), written: boxes and lowered scores in the order in which they were chosen.
        iou_threshold: linear and naive: boxes of a lower IoU keep their scores.
        sigma: gaussian: the width.
        min_score: boxes are dropped when their score falls below it.
        method: 0 naive (scores become zero), 1 linear, 2 gaussian.
        offset: as in :func:`nms`.

    Returns:
        The indices of the boxes in the first rows of ``dets``, int64.
    """
    _check_boxes(boxes, scores)
    _check_shape('dets', dets, 5)
    if method not in (0, 1, 2):
        raise ValueError(f'unknown method {method} of Soft-NMS: expected 0, 1 or 2')
    columns = [_wide(boxes), _wide(scores)[:, None]]
    rows = np.concatenate([column.detach().cpu().numpy() for column in columns], axis=1)
    kind = rows.dtype.type
    threshold, width, least = kind(iou_threshold), kind(sigma), kind(min_score)
    areas, indices, count = _areas(rows[:, :4], offset), np.arange(len(rows)), len(rows)
    i = 0
    while i < count:
        best = i + _first_of_highest(rows[i:count, 4])
        for array in (rows, areas, indices):
            array[[i, best]] = array[[best, i]]
        iou = _ious(rows[:count, :4], areas[:count], i, offset)
        weight = np.ones_like(iou)
        if method == 2:
            weight = np.exp(-(iou * iou) / width)
        else:
            np.copyto(weight, 0 if method == 0 else 1 - iou, where=iou >= threshold)
        rows[i + 1 : count, 4] *= weight
        keep = ~(rows[i + 1 : count, 4] < least)
        order = i + 1 + _filled_from_the_end(keep)
        for array in (rows, areas, indices):
            array[i + 1 : i + 1 + len(order)] = array[order]
        i, count = i + 1, i + 1 + len(order)
    dets[:count] = torch.from_numpy(rows[:count]).to(dets)
    return torch.from_numpy(indices[:count]).to(boxes.device)


def _first_of_highest(scores: NDArray[Any]) -> int:
    """Return the position of the maximum as ``<`` finds it: a NaN in front stays there."""
    if np.isnan(scores[0]):
        return 0
    return int(np.where(np.isnan(scores), -np.inf, scores).argmax())


def _filled_from_the_end(keep: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the order of what is kept when each gap is filled with the last one, as in mmcv."""
    count = int(keep.sum())
    order = np.arange(count)
    order[~keep[:count]] = count + np.flatnonzero(keep[count:])[::-1]
    return order


@_kernel
def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the average of bilinear samples in each cell of each RoI (Mask R-CNN, ICCV 2017).

    Args:
        input: (B, C, H, W).
        rois: (K, 5): image, x1, y1, x2, y2.
        output: (K, C, aligned_height, aligned_width), written.
        argmax_y: used by the maximum alone, which is not served.
        argmax_x: likewise.
        aligned_height: rows of cells.
        aligned_width: columns of cells.
        spatial_scale: from ``rois`` to pixels of ``input``.
        sampling_ratio: samples along each side of a cell; 0: about one a pixel.
        pool_mode: 1 average; 0, the maximum, is not served.
        aligned: whether pixel centres are at .5.
    """
    _check_rois(rois, len(input), pool_mode)
    maps, rois = _wide_as(input, rois)
    output.copy_(
        torch.ops.torchvision.roi_align(
            maps, rois, spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
        )
    )


@_kernel
def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of :func:`roi_align_forward` to ``grad_input``."""
    _check_rois(rois, len(grad_input), pool_mode)
    grad, rois = _wide_as(grad_output, rois)
    grad_input.add_(
        torch.ops.torchvision._roi_align_backward(
            grad,
            rois,
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )


def _check_rois(rois: Tensor, images: int, pool_mode: int) -> None:
    """Check the image numbers, which index memory; not on a GPU, where that would synchronise."""
    if pool_mode == 0:
        MissingOp("roi_align with pool_mode='max'")()
    _check_shape('rois', rois, 5)
    if rois.is_cpu and not bool(((rois[:, 0] >= 0) & (rois[:, 0] < images)).all()):
        raise ValueError(f'rois name an image that is not among the {images} of the batch')


@_kernel
def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Write the focal loss of each logit (Lin et al., ICCV 2017).

    Args:
        input: (N, C) logits.
        target: (N,) int64; C, or any number that is no class, is the background.
        weight: (C,) factor of the rows with this target, or none: (0,). mmcv reads memory behind
            it for the background, which has the factor 1 here.
        output: (N, C), written.
        gamma: exponent of what is missing from a probability of 1.
        alpha: factor of the target's class; 1 - alpha that of others.
    """
    _, scale, logits, log = _focal_terms(input, target, weight, alpha)
    output.copy_(-scale * torch.sigmoid(-logits).pow(gamma) * log)


@_kernel
def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Write the derivative of :func:`sigmoid_focal_loss_forward` at each logit."""
    sign, scale, logits, log = _focal_terms(input, target, weight, alpha)
    missing = torch.sigmoid(-logits)
    slope = missing - gamma * torch.sigmoid(logits) * log
    grad_input.copy_(-sign * scale * missing.pow(gamma) * slope)


def _focal_terms(
    input: Tensor, target: Tensor, weight: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return what the loss and its derivative are made of, (N, C) each.

    Returns:
        The sign that turns a logit into that of the right answer, the factor of its loss, the
        logits of the right answers, and the logarithms of their probabilities.
    """
    rows, classes = input.shape
    if target.shape != (rows,):
        raise ValueError(f'expected {rows} targets, not a tensor of shape {tuple(target.shape)}')
    positive = target[:, None] == torch.arange(classes, device=target.device)
    kind = _wide(input).dtype
    sign = positive.to(kind).mul_(2).sub_(1)
    scale = positive.to(kind).mul_(2 * alpha - 1).add_(1 - alpha)
    if weight.numel():
        is_class = (target >= 0) & (target < classes)
        weights = weight.to(kind)[target.clamp(0, classes - 1)]
        scale *= torch.where(is_class, weights, torch.ones_like(weights))[:, None]
    logits = sign * _wide(input)
    log = torch.nn.functional.logsigmoid(logits).clamp_min(_LOG_FLOAT_MIN)
    return sign, scale, logits, log


@_kernel
def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Write a deformable convolution (Dai et al., ICCV 2017) to ``output``.

    Args:
        input: (B, C, H, W).
        weight: (D, C / group, kH, kW).
        offset: (B, deformable_group * kH * kW * 2, height, width), y before x.
        output: (B, D, height, width), written.
        columns: scratch memory of the compiled op; see :func:`deform_conv_backward_input`.
        ones: likewise.
        kW: width of the kernel; height, stride (d), padding and dilation are called alike.
        im2col_step: images at a time; torchvision decides by itself.
    """
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    output.copy_(_deform_conv(input, weight, offset, None, None, geometry))


@_kernel
def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Add the gradient of :func:`deform_conv_forward` to ``gradInput`` and ``gradOffset``.

    torchvision computes that of the weights with it. It is left in ``columns``, which mmcv hands
    on to :func:`deform_conv_backward_parameters`.
    """
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    grads = _deform_conv_backward(gradOutput, input, weight, offset, None, None, geometry)
    gradInput.add_(grads[0])
    gradOffset.add_(grads[2])
    columns.resize_(weight.shape).copy_(grads[1])


@_kernel
def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add ``scale`` times the weights' gradient to ``gradWeight``."""
    if columns.shape == gradWeight.shape:
        grad = columns.clone()
        columns.resize_(0)  # of this backward pass alone
    else:
        geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
        # The gradient depends on the weights' shape alone.
        grad = _deform_conv_backward(gradOutput, input, gradWeight, offset, None, None, geometry)[1]
    gradWeight.add_(grad, alpha=scale)


@_kernel
def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Write a modulated deformable convolution (Zhu et al., CVPR 2019) to ``output``.

    Args:
        input: (B, C, H, W).
        weight: (D, C / group, kernel_h, kernel_w).
        bias: (D,), or (0,) where ``with_bias`` is False.
        ones: scratch memory of the compiled op, not used.
        offset: (B, deformable_group * kernel_h * kernel_w * 2, height, width), y before x.
        mask: (B, deformable_group * kernel_h * kernel_w, height, width), factors of the samples.
        output: (B, D, height, width), written.
        columns: scratch memory of the compiled op, not used.
    """
    geometry = (
        *(stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w),
        *(group, deformable_group),
    )
    output.copy_(_deform_conv(input, weight, offset, mask, bias if with_bias else None, geometry))


@_kernel
def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Add the gradients of :func:`modulated_deform_conv_forward` to the five ``grad_``."""
    geometry = (
        *(stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w),
        *(group, deformable_group),
    )
    grads = _deform_conv_backward(
        grad_output, input, weight, offset, mask, bias if with_bias else None, geometry
    )
    grad_input.add_(grads[0])
    grad_weight.add_(grads[1])
    grad_offset.add_(grads[2])
    grad_mask.add_(grads[3])
    if with_bias:
        grad_bias.add_(grads[4])


_Geometry = tuple[int, int, int, int, int, int, int, int]


def _deform_conv(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: _Geometry,
) -> Tensor:
    tensors = _deform_conv_tensors(input, weight, offset, mask, bias)
    return torch.ops.torchvision.deform_conv2d(*tensors, *geometry, mask is not None)


def _deform_conv_backward(
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    geometry: _Geometry,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of input, weight, offset, mask and bias."""
    tensors = _deform_conv_tensors(input, weight, offset, mask, bias)
    return torch.ops.torchvision._deform_conv2d_backward(
        grad.to(tensors[0].dtype), *tensors, *geometry, mask is not None
    )


def _deform_conv_tensors(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, ...]:
    """Return the five tensors that torchvision expects, of one type.

    A place that is NaN has its sample read from anywhere in memory, which ends the interpreter.
    mmcv has such a sample be zero, as one outside of the image is.
    """
    if mask is None:
        mask = input.new_zeros(len(input), 1)
    if bias is None:
        bias = weight.new_zeros(len(weight))
    input, weight, offset, mask, bias = _wide_as(input, weight, offset, mask, bias)
    offset = offset.nan_to_num(nan=-_OUTSIDE, posinf=_OUTSIDE, neginf=-_OUTSIDE)
    return input, weight, offset, mask, bias
