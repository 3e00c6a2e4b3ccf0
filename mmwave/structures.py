"""What the rooms of mmwave hand to each other about a backbone: plain frozen data, no tensors."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StageInfo:
    """One output level of a backbone.

    Attributes:
        channels: number of channels C of the level's map (N, C, H / stride, W / stride).
        stride: pixels of the input image per step of the map, along both axes.
    """

    channels: int
    stride: int


@dataclass(frozen=True)
class SizeConstraint:
    """Which image sizes a backbone accepts.

    Attributes:
        min_size: smallest accepted height and width in pixels.
        divisors: accepted heights are multiples of the first, widths of the second; 1 means any.
        only: the one accepted height and width; None where there are more.
    """

    min_size: int = 32
    divisors: tuple[int, int] = (1, 1)
    only: tuple[int, int] | None = None

    def check(self, height: int, width: int) -> None:
        """Raise ``ValueError`` naming the size and the accepted ones unless the image fits."""
        if height < self.min_size or width < self.min_size:
            raise ValueError(
                f'image of {height} x {width} pixels (height x width) is too small: '
                f'each side must be at least {self.min_size}'
            )
        if self.only not in (None, (height, width)):
            raise ValueError(
                f'image of {height} x {width} pixels (height x width) does not fit: '
                f'it must have {self.only[0]} x {self.only[1]}'
            )
        by_height, by_width = self.divisors
        if height % by_height or width % by_width:
            accepted = (
                f'each side must be a multiple of {by_height}'
                if by_height == by_width
                else f'the height must be a multiple of {by_height}, the width of {by_width}'
            )
            raise ValueError(
                f'image of {height} x {width} pixels (height x width) does not fit: {accepted}'
            )
