"""Backbones whose weights are tied to the grid of positions they were trained on, at any size."""

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn

from mmwave.models.layers import ConvEmbed
from mmwave.models.layers.token_grid import ResizedTokens, TokenGrid, WindowTokens
from mmwave.models.layers.windows import mask_of
from mmwave.ops.graphs import any_size
from mmwave.ops.windows import counts, cut, resize
from mmwave.structures import SizeConstraint

from .base import MLPBackbone

GridMode = Literal['window', 'resize', 'strict']
GRID_MODES = ('window', 'resize', 'strict')
TAPS = 4
"""Parts that the blocks of a plain backbone fall into."""


def grid_pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """``value``, a field ``name`` of an arch, as height and width; one number is a square.

    Raises:
        ValueError: naming the field and its value where it is not that.
    """
    pair = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(pair) != 2 or any(not isinstance(side, int) or side < 1 for side in pair):
        raise ValueError(f'{name}={value} must be one or two positive whole numbers')
    return pair


def tapped_depths(depths: Sequence[int]) -> tuple[int, ...]:
    """``depths`` of a plain backbone as a tuple of four numbers; parts without blocks are allowed.

    Raises:
        ValueError: naming them where they are not that, or all zero.
    """
    given = tuple(depths) if isinstance(depths, Sequence) else ()
    whole = all(isinstance(depth, int) and depth >= 0 for depth in given)
    if len(given) != TAPS or not whole or not any(given):
        raise ValueError(
            f'depths={depths} must be {TAPS} whole numbers, one per tap, and not all zero'
        )
    return given


def check_grid_mode(family: str, grid_mode: str) -> None:
    """Raise ``ValueError`` unless ``grid_mode`` is one of :data:`GRID_MODES`."""
    if grid_mode not in GRID_MODES:
        raise ValueError(f'unknown grid_mode {grid_mode!r}: {family} has {", ".join(GRID_MODES)}')


class GridBackbone(MLPBackbone):
    """A backbone without overlap: kernels of the stem and the downsamples equal their strides.

    A window of the trained size is therefore the same thing on the image and at every stage.
    Blocks take (M, H, W, C) and a :class:`TokenGrid`; ``stem`` and ``downsamples`` take
    (N, C, H, W) and (M, H, W, C) and give (N, C, H, W) and (M, H, W, C).

    Args:
        channels: channels of every stage.
        strides: input pixels per position of every stage's map.
        grids: h and w of every stage's map at the trained image size, which they all tell.
        grid_mode: ``'window'`` takes any size from 32 x 32 up: the image is cut into windows of the
            trained size, the last ones filled up; what mixes positions sees zeros there, and means
            over whole images leave the filling out. ``'resize'`` takes any such size: what mixes
            positions is interpolated to the image's grid, see
            :mod:`mmwave.models.layers.token_grid`. ``'strict'`` takes the trained size alone. There
            all three are the same, bit for bit.

    The other arguments are those of :class:`MLPBackbone`.

    Raises:
        ValueError: for an unknown ``grid_mode``.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        grids: Sequence[tuple[int, int]],
        grid_mode: GridMode,
        out_indices: int | Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        with_cp: bool,
        init_cfg: dict | None,
        lean: bool = True,
        deploy: bool = False,
    ) -> None:
        check_grid_mode(type(self).__name__, grid_mode)
        trained = (strides[0] * grids[0][0], strides[0] * grids[0][1])
        super().__init__(
            channels=channels,
            strides=strides,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            lean=lean,
            deploy=deploy,
            size_constraint=SizeConstraint(only=trained) if grid_mode == 'strict' else None,
            init_cfg=init_cfg,
        )
        self.grid_mode = grid_mode
        self.trained_size = trained
        """Height and width in pixels of the images that the weights were trained on."""
        self._strides, self._grids = tuple(strides), tuple(grids)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, in_channels, H, W) to the levels that ``stage_info`` describes."""
        self.check_input(x)
        outputs = []
        x, grids = self._enter(x)
        for i, grid in enumerate(grids):
            if i:
                x = self.downsamples[i - 1](x if self._same(i) else grids[i - 1].even(x))
            else:
                x = self.stem(x).permute(0, 2, 3, 1).contiguous()
            x = self.run_blocks(i, x, grid)
            if i in self.out_indices:
                outputs.append(grid.whole(self.out_norms[str(i)](x)))
        return tuple(outputs)

    def _same(self, stage: int) -> bool:
        """Whether a stage's map has the stride of the one before it."""
        return self._strides[stage] == self._strides[stage - 1]

    def _enter(self, x: Tensor) -> tuple[Tensor, list[TokenGrid]]:
        """The images as the stem takes them, and the grid of every stage."""
        height, width = x.shape[2:]
        if self.grid_mode == 'resize':
            patch = self._strides[0]
            size = tuple(patch * n for n in counts((height, width), (patch, patch)))
            return resize(x, size), self._grids_of(
                (height, width), lambda size, window: ResizedTokens.of(size, window, like=x)
            )
        shape = counts((height, width), self.trained_size)
        # A graph that is to hold for every size is built for sizes that need filling.
        filled = self.grid_mode == 'strict' or (
            not any_size(height, width)
            and not any(s % w for s, w in zip((height, width), self.trained_size, strict=True))
        )

        def windows(size: tuple[int, int], window: tuple[int, int]) -> WindowTokens:
            mask = None if filled else mask_of(size, window, shape, like=x).permute(0, 2, 3, 1)
            return WindowTokens(size, window, shape, mask)

        return cut(x, self.trained_size, shape), self._grids_of((height, width), windows)

    def _grids_of(
        self, image: tuple[int, int], make: Callable[[tuple[int, int], tuple[int, int]], TokenGrid]
    ) -> list[TokenGrid]:
        """A grid per stage, made of the map's size and its trained one; the same ones once."""
        grids: list[TokenGrid] = []
        size, before = image, 1
        for i in range(self.num_stages):
            if i and self._same(i):
                grids.append(grids[-1])
            else:
                # Of the size before, as convolutions do: to torch.compile it is the same number.
                step, before = self._strides[i] // before, self._strides[i]
                size = counts(size, (step, step))
                grids.append(make(size, self._grids[i]))
        return grids


class PlainBackbone(GridBackbone):
    """A backbone of one stride: the blocks of the paper's one stage, tapped at four depths.

    Args:
        channels: channels of the map.
        patch_size: pixels per position.
        grid: h and w of the trained map.
        depths: blocks between the taps.
        in_channels: channels of the images.
        block: makes block number k of all.
        norm: makes an output norm.

    The other arguments are those of :class:`GridBackbone`.
    """

    def __init__(
        self,
        *,
        channels: int,
        patch_size: int,
        grid: tuple[int, int],
        depths: Sequence[int],
        in_channels: int,
        block: Callable[[int], nn.Module],
        norm: Callable[[], nn.Module],
        grid_mode: GridMode,
        out_indices: int | Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        with_cp: bool,
        init_cfg: dict | None,
        lean: bool = True,
        deploy: bool = False,
    ) -> None:
        count = len(depths)
        super().__init__(
            channels=[channels] * count,
            strides=[patch_size] * count,
            grids=[grid] * count,
            grid_mode=grid_mode,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            init_cfg=init_cfg,
            lean=lean,
            deploy=deploy,
        )
        self.in_channels = in_channels
        self.stem = ConvEmbed(
            in_channels, channels, kernel_size=patch_size, stride=patch_size, padding=0, norm=None
        )
        self.downsamples = nn.ModuleList(nn.Identity() for _ in range(1, self.num_stages))
        starts = [sum(depths[:i]) for i in range(self.num_stages + 1)]
        self.stages = nn.ModuleList(
            nn.Sequential(*(block(k) for k in range(starts[i], starts[i + 1])))
            for i in range(self.num_stages)
        )
        self.out_norms = nn.ModuleDict({str(i): norm() for i in self.out_indices})
        self.freeze()


def four_stages(depth: int) -> tuple[int, ...]:
    """``depth`` blocks in four parts as equal as can be, the last one never the smaller."""
    return tuple((i + 1) * depth // TAPS - i * depth // TAPS for i in range(TAPS))
