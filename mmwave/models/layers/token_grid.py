"""Maps (N, H, W, C) of any size, for layers whose weights are tied to a grid of h x w positions.

Two answers to one question, with one set of methods that blocks are written against:
:class:`WindowTokens` cuts the map into windows of the trained grid; :class:`ResizedTokens`
resamples the map to the trained grid, and the output of the layers back.

The second is what interpolating the weights comes to. Let W mix the trained positions, U
interpolate from the trained grid to the map's and D from the map's to the trained one. The matrix
of the interpolated layer is U W D: its rows are interpolated to the new outputs, its columns to the
new inputs. That product is never built; D, W and U are applied one after the other. Rows of U and D
sum to one, up to the rounding of the map's type: a constant map stays constant where it does under
W.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmwave.ops.graphs import is_dynamic
from mmwave.ops.mean import mean_over
from mmwave.ops.windows import counts, join

from .windows import Grid, masked, mean_of_windows, repeated


def resampling(source: int, target: int, like: Tensor) -> Tensor:
    """The matrix (target, source) of linear interpolation along an axis, antialiased.

    Positions are centres of equal cells; reduced axes are averaged by a triangle that is as wide
    as two of the target's cells. Rows sum to one. The same as torch's
    ``interpolate(mode='bilinear', antialias=True)``, which lacks half precision on the CPU.
    """
    scale = source / target
    exact = torch.float64 if like.dtype == torch.float64 else torch.float32
    at = torch.arange(source, device=like.device, dtype=exact)
    wanted = (torch.arange(target, device=like.device, dtype=exact) + 0.5) * scale - 0.5
    reach = torch.sym_max(scale, 1.0)
    weights = (1 - (at - wanted[:, None]).abs() / reach).clamp(min=0)
    return (weights / weights.sum(dim=1, keepdim=True)).to(like.dtype)


@dataclass(frozen=True)
class TokenGrid(Grid):
    """What both answers have in common."""

    def to_trained(self, x: Tensor, axes: tuple[int, ...] = (1, 2)) -> Tensor:
        """The stage's own form, for layers that mix positions along ``axes`` (1: H, 2: W)."""
        raise NotImplementedError

    def from_trained(self, x: Tensor, axes: tuple[int, ...] = (1, 2)) -> Tensor:
        """The output of such layers, in the stage's own form."""
        raise NotImplementedError

    def mixed(self, x: Tensor, mix: Callable[[Tensor], Tensor]) -> Tensor:
        """``x`` with its positions mixed by ``mix``: (M, h * w, C) -> (M, h * w, C)."""
        tokens = self.to_trained(x).flatten(1, 2)
        return self.from_trained(mix(tokens).unflatten(1, self.window))

    def mean(self, x: Tensor) -> Tensor:
        """Mean over the positions of the whole map: (N, C)."""
        raise NotImplementedError

    def pad_even(self, x: Tensor) -> Tensor:
        """The stage's own form, made ready for a 2 x 2 convolution of stride 2."""
        raise NotImplementedError

    def to_map(self, x: Tensor) -> Tensor:
        """The stage's own form -> (N, C, H, W)."""
        raise NotImplementedError


@dataclass(frozen=True)
class WindowTokens(TokenGrid):
    """Windows (N * T, h, w, C) of a map, the stage's own form: layers see each by itself.

    Attributes:
        shape: rows and columns of windows.
        mask: of :func:`mask_of`, channels last; None where the windows fill the map.
    """

    shape: tuple[int, int]
    mask: Tensor | None

    @property
    def count(self) -> int:  # type: ignore[override]
        """T, windows of a map."""
        return self.shape[0] * self.shape[1]

    def to_trained(self, x: Tensor, axes: tuple[int, ...] = (1, 2)) -> Tensor:
        return x if self.mask is None else masked(x, self.mask, self.count)

    def from_trained(self, x: Tensor, axes: tuple[int, ...] = (1, 2)) -> Tensor:
        return x

    def mean(self, x: Tensor) -> Tensor:
        return mean_of_windows(
            self.to_trained(x), (1, 2), size=self.size, window=self.window, shape=self.shape
        )

    def spread(self, factors: Tensor) -> Tensor:
        return repeated(factors, self.count)[:, None, None]

    def pad_even(self, x: Tensor) -> Tensor:
        return self.to_trained(x)

    def to_map(self, x: Tensor) -> Tensor:
        return join(x.permute(0, 3, 1, 2), self.size, self.shape)


@dataclass(frozen=True)
class ResizedTokens(TokenGrid):
    """A map (N, H, W, C), the stage's own form: layers see it resampled to the trained grid.

    Attributes:
        down: for H and W, the matrix to the trained grid; None where the sides are the same.
        up: for H and W, the matrix from the trained grid.
    """

    down: tuple[Tensor | None, Tensor | None]
    up: tuple[Tensor | None, Tensor | None]

    @classmethod
    def of(cls, size: tuple[int, int], window: tuple[int, int], like: Tensor) -> 'ResizedTokens':
        """The grid of a map of ``size`` for layers trained on ``window``."""

        def matrices(sources: tuple[int, int], targets: tuple[int, int]) -> tuple:
            pairs = zip(sources, targets, strict=True)
            return tuple(
                None if not is_dynamic(s, t) and s == t else resampling(s, t, like)
                for s, t in pairs
            )

        return cls(size, window, matrices(size, window), matrices(window, size))

    def to_trained(self, x: Tensor, axes: tuple[int, ...] = (1, 2)) -> Tensor:
        return _resampled(x, self.down, axes)

    def from_trained(self, x: Tensor, axes: tuple[int, ...] = (1, 2)) -> Tensor:
        return _resampled(x, self.up, axes)

    def mean(self, x: Tensor) -> Tensor:
        return mean_over(x, 1, 2)

    def spread(self, factors: Tensor) -> Tensor:
        return factors[:, None, None]

    def pad_even(self, x: Tensor) -> Tensor:
        (height, width), (rows, columns) = self.size, counts(self.size, (2, 2))
        return F.pad(x, (0, 0, 0, 2 * columns - width, 0, 2 * rows - height))

    def to_map(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


def _resampled(
    x: Tensor, matrices: tuple[Tensor | None, Tensor | None], axes: tuple[int, ...]
) -> Tensor:
    for axis in axes:
        matrix = matrices[axis - 1]
        if matrix is not None:
            sides = (x.shape[0], matrix.shape[0], *x.shape[2:])
            x = torch.matmul(matrix, x.flatten(2)).view(sides) if axis == 1 else matrix @ x
    return x
