"""What a written file computes, beside what the model computes in torch."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Outputs = Mapping[str, NDArray]
"""Name -> array."""

LIMIT = 1e-4
"""Largest relative difference of a file that is kept."""


@dataclass(frozen=True)
class Comparison:
    """The differences of one batch.

    Attributes:
        shape: of the batch: images, channels, height, width.
        absolute: largest difference of any output.
        relative: the same in units of the largest magnitude of that output; infinite where one has
            another shape or NaN.
        detail: what else there is to say, e.g. how many detections were compared.
    """

    shape: tuple[int, ...]
    absolute: float
    relative: float
    detail: str = ''

    @property
    def is_good(self) -> bool:
        """Whether the difference is at most :data:`LIMIT`."""
        return self.relative <= LIMIT


def compare(shape: tuple[int, ...], got: Outputs, wanted: Outputs) -> Comparison:
    """Compare the outputs of one batch, by name.

    Args:
        shape: of the batch.
        got: of the file.
        wanted: of the model.
    """
    absolute = relative = 0.0
    for name, right in wanted.items():
        left = got.get(name)
        if left is None or left.shape != right.shape:
            found = 'missing' if left is None else f'of shape {left.shape}'
            detail = f'{name} is {found}, not of shape {right.shape}'
            return Comparison(shape, float('inf'), float('inf'), detail)
        if not (np.isfinite(left).all() and np.isfinite(right).all()):
            return Comparison(shape, float('inf'), float('inf'), f'{name} holds NaN or infinity')
        error = float(np.abs(left.astype(np.float64) - right).max(initial=0.0))
        scale = float(np.abs(right).max(initial=0.0))
        absolute = max(absolute, error)
        relative = max(relative, error / scale if scale else error)
    return Comparison(shape, absolute, relative)
