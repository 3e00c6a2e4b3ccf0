"""Differentiable gradients of ``phase_mix``, which its kernels do not compute."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..graphs import differentiable_gradients
from .reference import phase_mix_reference


def phase_mix_gradients(
    tensors: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    dtype: torch.dtype,
    *,
    split: bool,
    rectify: bool = False,
) -> list[Tensor | None]:
    """Return the gradients of the six tensors, by torch's operators.

    Args:
        tensors: the inputs of :func:`mmwave.ops.phase_mix`, attached to their autograd graph.
        gradients: gradients of its three outputs, attached likewise.
        dtype: of the outputs; maps and kernels may be of another.
        split: the argument of ``phase_mix``.
        rectify: likewise.
    """

    def recomputed(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a_h, p_h, a_w, p_w, *kernels = (tensor.to(dtype) for tensor in tensors)
        if rectify:
            p_h, p_w = p_h.relu(), p_w.relu()
        return phase_mix_reference(a_h, p_h, a_w, p_w, *kernels, split=split)

    return differentiable_gradients(recomputed, tensors, gradients)
