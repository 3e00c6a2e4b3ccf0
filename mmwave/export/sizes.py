"""Parts of a model that fix the size of its images: replaced where they can be, else refused."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mmwave.apis import UsageError

_POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


class FreeUpsample(nn.Module):
    """Resize maps (N, C, H, W) to (N, C, s * H, s * W) for a whole number s.

    mmseg's ``Upsample`` computes sizes by ``int(side * scale)``, which is a constant in a graph.

    Args:
        scale: s.
        mode: of :func:`torch.nn.functional.interpolate`.
        align_corners: likewise.
    """

    def __init__(self, scale: int, mode: str, align_corners: bool | None) -> None:
        super().__init__()
        self.scale, self.mode, self.align_corners = scale, mode, align_corners

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[2] * self.scale, x.shape[3] * self.scale)
        return F.interpolate(x, size, mode=self.mode, align_corners=self.align_corners)


def free_sizes(model: nn.Module) -> None:
    """Replace in place what would fix the size of images in a graph.

    Args:
        model: a copy that is to be exported.

    Raises:
        UsageError: where a part holds for one size alone.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, _POOLS) and not _is_mean(module.output_size):
            raise UsageError(
                f'{name} pools to {_shown(module.output_size)} positions, which an exported file '
                'can for one size of images alone: give --fixed HxW'
            )
        if type(module).__name__ != 'Upsample' or not hasattr(module, 'scale_factor'):
            continue
        scale = module.scale_factor
        if getattr(module, 'size', None) or scale is None:
            continue  # to a size that is a constant anyway
        if not isinstance(scale, float | int) or scale != int(scale):
            raise UsageError(
                f'{name} resizes by {scale}, which an exported file can for one size of images '
                'alone: give --fixed HxW'
            )
        free = FreeUpsample(int(scale), module.mode, module.align_corners)
        model.set_submodule(name, free)


def _is_mean(size: int | Sequence[int | None]) -> bool:
    return size == 1 or tuple([size] if isinstance(size, int) else size) == (1, 1)


def _shown(size: int | Sequence[int | None]) -> str:
    height, width = (size, size) if isinstance(size, int) else size
    return f'{height} x {width}'
