"""Sizes of a model, read from the names and shapes of its tensors."""

import math

from mmwave.errors import UserError

from .family import Shape, Shapes

MAX_BLOCKS = 100
"""Most blocks of a stage: the model is built, which must not take minutes for a hostile file."""


def shape_of(shapes: Shapes, name: str, axes: int, family: str) -> Shape:
    """Return the shape of a tensor.

    Raises:
        UserError: where the tensor is missing, has another number of axes, or is empty.
    """
    if name not in shapes:
        raise UserError(f'no {family}: {name} is missing')
    shape = shapes[name]
    if len(shape) != axes or 0 in shape:
        raise UserError(f'no {family}: {name} has shape {shape}, expected {axes} axes')
    return shape


def blocks_of(shapes: Shapes, lead: str) -> int:
    """Count the blocks whose names begin with ``lead`` and a number.

    Raises:
        UserError: where there are more than :data:`MAX_BLOCKS`.
    """
    count = len({n.removeprefix(lead).partition('.')[0] for n in shapes if n.startswith(lead)})
    if count > MAX_BLOCKS:
        raise UserError(f'{count} blocks {lead}#: expected {MAX_BLOCKS} at most')
    return count


def classes_of(shapes: Shapes) -> int | None:
    """Return the number of classes of a linear layer ``head``; None where there is none."""
    shape = shapes.get('head.weight')
    return shape[0] if shape else None


def ratio_of(whole: int, part: int, what: str) -> int:
    """Return ``whole / part``.

    Raises:
        UserError: where ``part`` does not divide ``whole``; ``what`` names the two numbers.
    """
    if whole % part:
        raise UserError(f'{what}: {whole} is no multiple of {part}')
    return whole // part


def side_of(positions: int, what: str) -> int:
    """Return the side of a square of ``positions``.

    Raises:
        UserError: where they are no square; ``what`` names them.
    """
    side = math.isqrt(positions)
    if side * side != positions:
        raise UserError(
            f'{what}: {positions} positions are no square, and a file does not state their height '
            'and width'
        )
    return side
