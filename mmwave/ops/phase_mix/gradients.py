"""Gradients of ``phase_mix`` that have gradients themselves, which its kernels do not compute."""

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
    """Return the gradients of the six tensors, by torch's operations.

    Args:
        tensors: what :func:`mmwave.ops.phase_mix` mixed, attached to their graph.
        gradients: of its three results, attached likewise.
        dtype: of the results; maps and taps may be of another.
        split: as ``phase_mix`` was given it.
        rectify: likewise.
    """

    def again(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a_h, p_h, a_w, p_w, *taps = (tensor.to(dtype) for tensor in tensors)
        if rectify:
            p_h, p_w = p_h.relu(), p_w.relu()
        return phase_mix_reference(a_h, p_h, a_w, p_w, *taps, split=split)

    return differentiable_gradients(again, tensors, gradients)
