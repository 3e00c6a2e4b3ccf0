"""Textured scenes of plain shapes: the drawing half of the demo's data set.

A scene depends on nothing but its seed, split, index and size, so a larger set begins with the
scenes of a smaller one and every run draws the same pixels.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

# In alphabetical order, in which data sets made of folders number their classes.
CLASSES = ('circle', 'ring', 'square', 'star', 'triangle')
SPLITS = ('train', 'val')
MIN_SIZE = 48

# Every such scene holds no object: detectors meet images without ground truth in practice too.
EMPTY_EVERY = 16

_SUPERSAMPLING = 4
_MAX_HIDDEN = 0.15
_MAX_TURN = math.radians(25)
_RADII = (0.15, 0.3)  # in sides of the image
_MIN_CONTRAST = 130.0
_TEXTURE = 55.0

Pattern = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Shape:
    """One object as it is seen: what later objects cover does not belong to its mask.

    Attributes:
        label: Index into ``CLASSES``.
        mask: Boolean, (size, size).
    """

    label: int
    mask: np.ndarray

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height in pixels of the smallest box around the mask."""
        columns = np.flatnonzero(self.mask.any(axis=0))
        rows = np.flatnonzero(self.mask.any(axis=1))
        left, top = int(columns[0]), int(rows[0])
        return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1

    @property
    def area(self) -> int:
        """Visible pixels."""
        return int(self.mask.sum())


@dataclass(frozen=True)
class Scene:
    """An image and its objects.

    Attributes:
        image: uint8 BGR, (size, size, 3).
        shapes: In the order in which they were painted.
    """

    image: np.ndarray
    shapes: tuple[Shape, ...]

    @property
    def semantic(self) -> np.ndarray:
        """uint8 label map, (size, size): 0 for the background, 1 + label for an object."""
        labels = np.zeros(self.image.shape[:2], np.uint8)
        for shape in self.shapes:
            labels[shape.mask] = 1 + shape.label
        return labels


def draw_scene(seed: int, split: str, index: int, size: int) -> Scene:
    """Draw scene ``index`` of a split.

    Args:
        seed: Non-negative seed of the whole set.
        split: One of ``SPLITS``.
        index: Position within the split, from 0.
        size: Side of the square image in pixels, at least ``MIN_SIZE``.

    Raises:
        ValueError: For an unknown split or too small a size.
    """
    if split not in SPLITS:
        raise ValueError(f'split must be one of {SPLITS}, got {split!r}')
    if size < MIN_SIZE:
        raise ValueError(f'size must be at least {MIN_SIZE} pixels, got {size}')
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    backdrop = _colour(rng, saturation=(0.05, 0.4), value=(0.25, 0.95))
    canvas = _texture(rng, size, backdrop, _PATTERNS)
    background = canvas.mean(axis=(0, 1))
    wanted = 0 if index % EMPTY_EVERY == EMPTY_EVERY - 1 else int(rng.integers(1, 5))
    shapes: list[Shape] = []
    for _ in range(wanted):
        label = int(rng.integers(len(CLASSES)))
        placed = _place(rng, label, size, shapes)
        if placed is None:
            continue
        coverage, shapes = placed
        fill = _texture(rng, size, _contrasting_colour(rng, background), _FILLS)
        canvas += coverage[..., None] * (fill - canvas)
    canvas += rng.normal(0.0, rng.uniform(2.0, 8.0), canvas.shape)
    return Scene(np.clip(np.rint(canvas), 0, 255).astype(np.uint8), tuple(shapes))


def _place(
    rng: np.random.Generator, label: int, size: int, shapes: list[Shape]
) -> tuple[np.ndarray, list[Shape]] | None:
    """Find room for one more shape; None when ten places all hide too much of an earlier one."""
    for _ in range(10):
        radius = rng.uniform(*_RADII) * size
        centre = rng.uniform(radius + 1, size - radius - 1, 2)
        turn = rng.uniform(-_MAX_TURN, _MAX_TURN)
        coverage = _coverage(label, centre, radius, turn, size)
        mask = coverage >= 0.5
        if all((shape.mask & mask).sum() <= _MAX_HIDDEN * shape.area for shape in shapes):
            below = [Shape(shape.label, shape.mask & ~mask) for shape in shapes]
            return coverage, [*below, Shape(label, mask)]
    return None


def _outlines(label: int) -> list[np.ndarray]:
    """Closed outlines of an upright shape within the unit circle; the second one is a hole."""
    name = CLASSES[label]
    if name == 'ring':
        return [_polygon(64, (1.0,)), _polygon(64, (0.55,))]
    corners, radii, first = {
        'circle': (64, (1.0,), 0.0),
        'square': (4, (1.0,), math.pi / 4),
        'triangle': (3, (1.0,), -math.pi / 2),
        'star': (10, (1.0, 0.45), -math.pi / 2),
    }[name]
    return [_polygon(corners, radii, first)]


def _polygon(corners: int, radii: tuple[float, ...], first: float = 0.0) -> np.ndarray:
    angles = first + np.arange(corners) * (2 * math.pi / corners)
    radius = np.resize(np.asarray(radii), corners)
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _coverage(label: int, centre: np.ndarray, radius: float, angle: float, size: int) -> np.ndarray:
    """Share of every pixel that the shape covers, (size, size) in 0..1."""
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    fine = np.zeros((size * _SUPERSAMPLING,) * 2, np.uint8)
    points = [
        np.rint((centre + radius * outline @ turn) * _SUPERSAMPLING).astype(np.int32)
        for outline in _outlines(label)
    ]
    cv2.fillPoly(fine, points, 1)
    blocks = fine.reshape(size, _SUPERSAMPLING, size, _SUPERSAMPLING)
    return blocks.mean(axis=(1, 3))


def _colour(
    rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> np.ndarray:
    red, green, blue = colorsys.hsv_to_rgb(
        rng.uniform(), rng.uniform(*saturation), rng.uniform(*value)
    )
    return 255.0 * np.array([blue, green, red])


def _contrasting_colour(rng: np.random.Generator, background: np.ndarray) -> np.ndarray:
    """A vivid colour, the farthest of a few when none keeps the wanted distance in BGR."""
    candidates = [_colour(rng, saturation=(0.5, 1.0), value=(0.35, 1.0)) for _ in range(12)]
    distances = [float(np.linalg.norm(colour - background)) for colour in candidates]
    good = [i for i, distance in enumerate(distances) if distance >= _MIN_CONTRAST]
    return candidates[good[0] if good else int(np.argmax(distances))]


def _texture(
    rng: np.random.Generator, size: int, colour: np.ndarray, patterns: Sequence[Pattern]
) -> np.ndarray:
    """A texture around a colour, float64 (size, size, 3)."""
    pattern = patterns[int(rng.integers(len(patterns)))](rng, size)
    other = colour + rng.uniform(-_TEXTURE, _TEXTURE, 3)
    return colour + (other - colour) * pattern[..., None]


def _ramp(rng: np.random.Generator, size: int) -> np.ndarray:
    """Distance in pixels along a random direction, (size, size)."""
    angle = rng.uniform(0.0, 2 * math.pi)
    rows, columns = np.mgrid[:size, :size].astype(np.float64)
    return columns * math.cos(angle) + rows * math.sin(angle)


def _gradient(rng: np.random.Generator, size: int) -> np.ndarray:
    ramp = _ramp(rng, size)
    return (ramp - ramp.min()) / (ramp.max() - ramp.min())


def _stripes(rng: np.random.Generator, size: int) -> np.ndarray:
    period = rng.uniform(5.0, 24.0)
    return 0.5 + 0.5 * np.sin(_ramp(rng, size) * (2 * math.pi / period))


def _checks(rng: np.random.Generator, size: int) -> np.ndarray:
    scale = math.pi / rng.uniform(5.0, 16.0)
    rows, columns = np.mgrid[:size, :size] * scale
    return (np.sin(rows) * np.sin(columns) > 0).astype(np.float64)


def _clouds(rng: np.random.Generator, size: int) -> np.ndarray:
    cells = int(rng.integers(4, 20))
    noise = cv2.resize(
        rng.uniform(size=(cells, cells)), (size, size), interpolation=cv2.INTER_LINEAR
    )
    return (noise - noise.min()) / (noise.max() - noise.min())


# Checks inside a shape would be squares of their own.
_FILLS: tuple[Pattern, ...] = (_gradient, _stripes, _clouds)
_PATTERNS: tuple[Pattern, ...] = (*_FILLS, _checks)
