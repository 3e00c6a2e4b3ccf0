"""The old name of :mod:`mmwave.ops.cache`."""

from collections.abc import Callable, Hashable

from torch import Tensor

from .cache import Made, cached


def kept(
    how: Hashable, make: Callable[..., Made], *tensors: Tensor, most: int | None = None
) -> Made | None:
    """Return :func:`~mmwave.ops.cache.cached` of the arguments."""
    return cached(how, make, *tensors, limit=most)
