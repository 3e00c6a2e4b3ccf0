"""What was read of somebody's data, in one form for boxes, masks and folders."""

import os.path as osp
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Split:
    """The training or the validation data.

    Attributes:
        images: how many a run will see.
        counts: for each class the objects, pixels or images that it has.
        sizes: width and height of images in pixels, of a sample where there are many.
        settings: of the data set in the config, paths absolute.
        in_images: for each class the images that have it; None where that is ``counts``.
        sides: for each object the square root of its box's area, and the size of its image.
    """

    images: int
    counts: Sequence[int]
    sizes: Sequence[tuple[int, int]]
    settings: dict[str, Any]
    in_images: Sequence[int] | None = None
    sides: Sequence[tuple[float, tuple[int, int]]] = ()


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """Training and validation data with the same classes.

    Attributes:
        unit: what is counted of a class: ``'objects'``, ``'pixels'`` or ``'images'``.
        classes: names in the order of their labels.
        train: the training data.
        val: the validation data.
        palette: a colour for each class as red, green, blue; None where the user gave none.
        warnings: what was found on reading that training goes on with.
    """

    unit: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    palette: tuple[Colour, ...] | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def named(self) -> str:
        """The number of classes as a text."""
        return f'{len(self.classes)} class{"" if len(self.classes) == 1 else "es"}'


def common_root(paths: Sequence[str]) -> str:
    """Return the deepest folder that holds all of these absolute paths, with a slash at its end."""
    root = osp.commonpath(paths)
    return root if root.endswith('/') else f'{root}/'


def below(root: str, path: str) -> str:
    """Return a path as seen from ``root``, '' for the root itself."""
    relative = osp.relpath(path, root)
    return '' if relative == '.' else relative
