"""Backbones whose weights are tied to the grid of positions they were trained on, at any size."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, Unpack

from torch import Tensor, nn

from mmwave.models.layers import ConvEmbed
from mmwave.models.layers.token_grid import ResizedTokens, TokenGrid, WindowTokens
from mmwave.models.layers.window_mixing import Windows
from mmwave.models.layers.windows import filled_sizes, is_filled, mask_of, stage_sizes
from mmwave.ops.windows import counts, cut, resize
from mmwave.structures import SizeConstraint

from .base import BackboneSettings, MLPBackbone, drop_path_rates

GridMode = Literal['window', 'resize', 'strict']
GRID_MODES = ('window', 'resize', 'strict')
NUM_OUTPUTS = 4
"""Stages of a plain backbone, each with an output."""


def grid_pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    """``value``, a field ``name`` of an arch, as height and width; one number is a square.

    Raises:
        ValueError: naming the field and its value where it is not that.
    """
    pair = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(pair) != 2 or any(not isinstance(side, int) or side < 1 for side in pair):
        raise ValueError(f'{name}={value} must be one or two positive whole numbers')
    return pair


def output_depths(depths: Sequence[int]) -> tuple[int, ...]:
    """``depths`` of a plain backbone as a tuple of four numbers; parts without blocks are allowed.

    Raises:
        ValueError: naming them where they are not that, or all zero.
    """
    given = tuple(depths) if isinstance(depths, Sequence) else ()
    whole = all(isinstance(depth, int) and depth >= 0 for depth in given)
    if len(given) != NUM_OUTPUTS or not whole or not any(given):
        raise ValueError(
            f'depths={depths} must be {NUM_OUTPUTS} whole numbers, one per output, and not all zero'
        )
    return given


def check_grid_mode(family: str, grid_mode: str) -> None:
    """Raise ``ValueError`` unless ``grid_mode`` is one of :data:`GRID_MODES`."""
    if grid_mode not in GRID_MODES:
        raise ValueError(f'unknown grid_mode {grid_mode!r}: {family} has {", ".join(GRID_MODES)}')


class GridBackbone(MLPBackbone):
    """A backbone without overlap: kernels of the stem and the downsamples equal their strides.

    A window of the trained size is therefore the same thing on the image and at every stage. Blocks
    are called with (M, H, W, C) and a :class:`TokenGrid`; ``stem`` maps (N, C, H, W) to
    (N, C, H, W), ``downsamples`` (M, H, W, C) to (M, H, W, C).

    Args:
        arch: the architecture.
        channels: channels of every stage.
        strides: input pixels per position of every stage's map.
        grids: h and w of every stage's map at the trained image size, which is the same for all.
        grid_mode: ``'window'`` accepts any size from 32 x 32 up: the image is cut into windows of
            the trained size, the last ones padded; what mixes positions sees zeros there, and means
            over whole images leave the padding out. ``'resize'`` accepts any such size: what mixes
            positions is interpolated to the image's grid, see
            :mod:`mmwave.models.layers.token_grid`. ``'strict'`` accepts the trained size alone.
            There all three are the same, bit for bit.

    The other arguments are those of :class:`BackboneSettings`.

    Raises:
        ValueError: for an unknown ``grid_mode``.
    """

    def __init__(
        self,
        arch: Any,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        grids: Sequence[tuple[int, int]],
        grid_mode: GridMode,
        **settings: Unpack[BackboneSettings],
    ) -> None:
        check_grid_mode(type(self).__name__, grid_mode)
        trained = (strides[0] * grids[0][0], strides[0] * grids[0][1])
        super().__init__(
            arch,
            channels=channels,
            strides=strides,
            size_constraint=SizeConstraint(only=trained) if grid_mode == 'strict' else None,
            **settings,
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
                x = x if self._same(i) else grids[i - 1].pad_even(x)
                x = self.run_part(self.downsamples[i - 1], x)
            else:
                x = self.run_part(self.stem, x).permute(0, 2, 3, 1).contiguous()
            x = self.run_blocks(i, x, grid)
            if i in self.out_indices:
                outputs.append(grid.to_map(self.out_norms[str(i)](x)))
        return tuple(outputs)

    def _same(self, stage: int) -> bool:
        """Whether a stage's map has the stride of the one before it."""
        return self._strides[stage] == self._strides[stage - 1]

    def _enter(self, x: Tensor) -> tuple[Tensor, list[TokenGrid]]:
        """The images as the stem accepts them, and the grid of every stage."""
        image = x.shape[2], x.shape[3]
        if self.grid_mode == 'resize':
            patch = self._strides[0]
            size = tuple(patch * n for n in counts(image, (patch, patch)))
            return resize(x, size), self._grids_of(
                image, lambda size, window: ResizedTokens.of(size, window, like=x)
            )
        shape = counts(image, self.trained_size)
        filled = self.grid_mode == 'strict' or is_filled(image, self.trained_size)

        def windows(size: tuple[int, int], window: tuple[int, int]) -> WindowTokens:
            mask = None if filled else mask_of(size, window, shape, like=x).permute(0, 2, 3, 1)
            return WindowTokens(size, window, shape, mask)

        return cut(x, self.trained_size, shape), self._grids_of(image, windows)

    def _grids_of(
        self, image: tuple[int, int], make: Callable[[tuple[int, int], tuple[int, int]], TokenGrid]
    ) -> list[TokenGrid]:
        """A grid per stage, made of the map's size and its trained one; the same ones once."""
        grids: list[TokenGrid] = []
        for i, size in enumerate(stage_sizes(image, self._strides[: self.num_stages])):
            same = i > 0 and self._same(i)
            grids.append(grids[-1] if same else make(size, self._grids[i]))
        return grids


class WindowBackbone(MLPBackbone):
    """A backbone of blocks that mix windows of the map, whose embeddings overlap these windows.

    So every block cuts the map and joins it again, see :meth:`windows`.

    Args:
        arch: the architecture.
        channels: channels of every stage.
        strides: input pixels per position of every stage's map.
        windows: h and w of the windows that every stage was trained on.
        grid_mode: ``'window'``: maps are cut into windows of the trained size, the last ones filled
            up with zeros in front of the mixing. ``'resize'``: maps are cut into windows that fill
            them, as many as come nearest to the trained size; what mixes positions is evaluated or
            interpolated for windows of that size. A graph that is exported, traced or compiled in
            this mode holds for one image size. ``'strict'`` accepts sizes that windows fill. There
            all three are the same, bit for bit.

    The other arguments are those of :class:`BackboneSettings`.

    Raises:
        ValueError: for an unknown ``grid_mode``.
    """

    def __init__(
        self,
        arch: Any,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        windows: Sequence[tuple[int, int]],
        grid_mode: GridMode,
        **settings: Unpack[BackboneSettings],
    ) -> None:
        check_grid_mode(type(self).__name__, grid_mode)
        super().__init__(
            arch,
            channels=channels,
            strides=strides,
            size_constraint=filled_sizes(strides, windows) if grid_mode == 'strict' else None,
            **settings,
        )
        self.grid_mode = grid_mode
        self._windows = tuple(windows)

    def windows(self, stage: int) -> Windows:
        """How the blocks of a stage see their map."""
        mode = self.grid_mode
        return Windows(self._windows[stage], resize=mode == 'resize', filled=mode == 'strict')


class PlainArch(Protocol):
    """What the archs of plain backbones have in common.

    Attributes:
        depths: blocks between the outputs.
        dim: channels of the map.
        patch_size: pixels per position.
        grid: h and w of the trained map.
    """

    depths: Sequence[int]
    dim: int
    patch_size: int
    grid: tuple[int, int]


class PlainBackbone(GridBackbone):
    """A backbone of one stride: the blocks of the paper's one stage, with outputs at four depths.

    A subclass calls ``__init__``, then :meth:`build`.

    Args:
        arch: a :class:`PlainArch`.
        grid_mode: see :class:`GridBackbone`.

    The other arguments are those of :class:`BackboneSettings`.
    """

    def __init__(
        self, arch: Any, *, grid_mode: GridMode, **settings: Unpack[BackboneSettings]
    ) -> None:
        count = len(arch.depths)
        super().__init__(
            arch,
            channels=[arch.dim] * count,
            strides=[arch.patch_size] * count,
            grids=[arch.grid] * count,
            grid_mode=grid_mode,
            **settings,
        )

    def build(
        self,
        *,
        block: Callable[[float], nn.Module],
        norm: Callable[[], nn.Module],
        same_rate: bool = False,
    ) -> None:
        """Build the four parts.

        Args:
            block: makes a block, of its drop path rate.
            norm: makes an output norm.
            same_rate: whether all blocks have the same drop path rate, instead of one that grows
                linearly with depth.
        """
        arch, stages = self.arch, range(self.num_stages)
        rates = drop_path_rates(self.drop_path_rate, arch.depths)
        if same_rate:
            rates = [[self.drop_path_rate] * depth for depth in arch.depths]
        self.stem = ConvEmbed(
            self.in_channels,
            arch.dim,
            kernel_size=arch.patch_size,
            stride=arch.patch_size,
            padding=0,
            norm=None,
        )
        self.downsamples = nn.ModuleList(nn.Identity() for _ in stages[1:])
        self.stages = nn.ModuleList(nn.Sequential(*map(block, rates[i])) for i in stages)
        self.out_norms = nn.ModuleDict({str(i): norm() for i in self.out_indices})
        self.finish()


def four_stages(depth: int) -> tuple[int, ...]:
    """``depth`` blocks in four parts as equal as can be, the last one never the smaller."""
    return tuple(
        (i + 1) * depth // NUM_OUTPUTS - i * depth // NUM_OUTPUTS for i in range(NUM_OUTPUTS)
    )
