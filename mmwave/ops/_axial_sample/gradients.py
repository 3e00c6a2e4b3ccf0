"""Differentiable gradients of ``axial_sample``, which its fast forms do not compute."""

from torch import Tensor

from ..graphs import differentiable_gradients
from .reference import axial_sample_reference


def axial_sample_gradients(
    x: Tensor, offsets: Tensor, gradient: Tensor, dim: int
) -> list[Tensor | None]:
    """Return the gradients of ``x`` and ``offsets`` by torch's operators.

    Args:
        x: as in :func:`mmwave.ops.axial_sample`, attached to its autograd graph.
        offsets: likewise.
        gradient: of the result, attached likewise.
        dim: as there.
    """

    def recomputed(x: Tensor, offsets: Tensor) -> tuple[Tensor]:
        return (axial_sample_reference(x, offsets, dim),)

    return differentiable_gradients(recomputed, (x, offsets), (gradient,))
