"""Sizes of images and numbers of them that a file is traced with, is for, and is compared on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mmengine.config import Config
from torch import nn

from mmwave.apis import UsageError
from mmwave.errors import printable

Size = tuple[int, int]
"""Height and width in pixels."""

LEAST = 64
"""Least side of images of free sizes: below, the coarsest maps are single positions."""

_EXAMPLE = (2, (256, 288))
# One window of 224 or 256 pixels, and several; the last is a multiple of no stride.
_TRIED = ((1, (192, 224)), (3, (289, 355)))


@dataclass(frozen=True)
class Plan:
    """What a file is traced with, and compared on.

    Attributes:
        example: images and size that are traced.
        tried: those that are compared.
        is_free: whether the file is for any of both.
    """

    example: tuple[int, Size]
    tried: Sequence[tuple[int, Size]]
    is_free: bool

    @classmethod
    def of(cls, cfg: Config, fixed: Size | bool, batch: int) -> 'Plan':
        """Return the plan of a call.

        Args:
            cfg: whose test images have a size.
            fixed: the size, True for that of the test images, False for any.
            batch: images, where the size is fixed.

        Raises:
            UsageError: where the batch is none, or goes with free sizes, or test images are of
                several sizes.
        """
        if batch < 1:
            raise UsageError(f'--batch {batch}: expected 1 or more images')
        if fixed is False:
            if batch != 1:
                raise UsageError(
                    f'--batch {batch}: only a file of --fixed size has a fixed number of images'
                )
            return cls(_EXAMPLE, _TRIED, True)
        size = test_size(cfg) if fixed is True else fixed
        return cls((batch, size), ((batch, size),), False)

    def check(self, model: nn.Module) -> None:
        """Raise :class:`UsageError` unless the backbones of a model accept all sizes."""
        for part in model.modules():
            accepted = getattr(part, 'size_constraint', None)
            if accepted is None:
                continue
            for _, size in (self.example, *self.tried):
                try:
                    accepted.check(*size)
                except ValueError as error:
                    hint = '; give --fixed HxW' if self.is_free else ''
                    raise UsageError(f'{error}{hint}') from error

    @property
    def sizes(self) -> str:
        """The sizes that the file is for."""
        height, width = self.example[1]
        return f'any from {LEAST}x{LEAST} up' if self.is_free else f'{height}x{width}'

    @property
    def batches(self) -> str:
        """The numbers of images that the file is for."""
        return 'any' if self.is_free else str(self.example[0])


def parse_size(text: str) -> Size:
    """Read a size as ``--fixed`` accepts it.

    Raises:
        UsageError: where it is none.
    """
    found = re.fullmatch(r'([1-9]\d{0,4})[xX]([1-9]\d{0,4})', text)
    if not found:
        raise UsageError(f'--fixed {printable(text)}: expected HxW in pixels, e.g. 512x1024')
    return int(found[1]), int(found[2])


def test_size(cfg: Config) -> Size:
    """Return height and width of the images that a config's test pipeline makes.

    Raises:
        UsageError: where it makes images of several sizes.
    """
    loader = cfg.get('test_dataloader') or {}
    for step in reversed((loader.get('dataset') or {}).get('pipeline') or []):
        kind = str(step.get('type')).rpartition('.')[2]
        given = step.get('crop_size') if kind == 'CenterCrop' else None
        if kind == 'Resize' and not step.get('keep_ratio'):
            given = step.get('scale')
        if isinstance(given, int):
            return given, given
        if isinstance(given, list | tuple) and len(given) == 2:
            return given[1], given[0]  # they are given as width, height
    raise UsageError(
        "--fixed: the config's test images are of several sizes; name one with --fixed HxW"
    )
