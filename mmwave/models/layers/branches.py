"""Branches of a block, blended by weights that depend on the whole image."""

from collections.abc import Callable, Sequence

from torch import Tensor


def branch_weights(
    reweight: Callable[[Tensor], Tensor], pooled: Tensor, branches: int = 3
) -> tuple[Tensor, ...]:
    """Return a weight per channel for each branch; those of a channel sum to 1.

    Args:
        reweight: C -> C * branches channels. Those of a channel of the map are neighbours, as in
            all published code.
        pooled: (N, C, ...), means of the branches' sum.
        branches: their number.

    Returns:
        As many tensors like ``pooled``.
    """
    logits = reweight(pooled).unflatten(1, (-1, branches))
    return logits.softmax(dim=2).unbind(dim=2)


def blended(maps: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Return the sum of ``maps``, each multiplied by its weight."""
    total = maps[0] * weights[0]
    for map_, weight in zip(maps[1:], weights[1:], strict=True):
        total = total.addcmul(map_, weight)
    return total


def by_branch(tensor: Tensor, branches: int = 3) -> Tensor:
    """Reorder outputs of ``reweight`` for a deploy form: (C * branches, ...) to (branches * C, ..).

    Those of a branch become neighbours.
    """
    return tensor.unflatten(0, (-1, branches)).transpose(0, 1).flatten(0, 1)
