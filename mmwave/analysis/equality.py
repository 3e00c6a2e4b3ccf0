"""Whether two forms compute the same, judged by what their dtype can do."""

from collections.abc import Mapping

import torch
from torch import Tensor

SLACK = 2
"""How many times the peer's own rounding error another form's may be."""


class Unequal(RuntimeError):
    """Two forms that are to be measured against each other do not compute the same."""


def relative_error(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """Norm of the error over the norm of what is wanted: the worst of all tensors, NaN included."""
    errors = []
    for name, tensor in wanted.items():
        truth = tensor.double()
        errors.append((got[name].double() - truth).norm() / truth.norm())
    # Not Python's max(), which may drop a NaN.
    return float(torch.stack(errors).max())


def check_equal(ours: Mapping[str, float], peer: float, dtype: torch.dtype) -> None:
    """Raise unless every form of ours is as close to the truth as the peer is.

    Args:
        ours: form -> :func:`relative_error` of what it computes in ``dtype``, the truth being what
            the peer computes in a wider one.
        peer: the same of the peer.
        dtype: what all of them compute in.

    Raises:
        Unequal: where an error is more than :data:`SLACK` times the peer's and more than one
            rounding of ``dtype``, or where either is no number; the message names the forms.
    """
    # In this order a NaN stays, and lets nothing pass.
    allowed = max(SLACK * peer, torch.finfo(dtype).eps)
    wrong = [f'{name} {error:.1e}' for name, error in ours.items() if not error <= allowed]
    if wrong:
        raise Unequal(
            f'nothing is timed: in {dtype} the relative error of {", ".join(wrong)} is above '
            f'{allowed:.1e}, where the published form has {peer:.1e}'
        )
