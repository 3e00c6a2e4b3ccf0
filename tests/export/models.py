"""Models of no library that can be exported in a second."""

import torch
from torch import Tensor, nn

from mmwave.export.images import Images, _generated
from mmwave.export.plan import Plan

FREE = Plan((2, (36, 40)), ((1, (32, 40)), (3, (51, 37))), True)
IMAGES = Images('noise', _generated())


class Upsample(nn.Module):
    """As mmseg's: the size that it computes is a constant of a graph."""

    def __init__(self, scale_factor: float) -> None:
        super().__init__()
        self.scale_factor, self.size = float(scale_factor), None
        self.mode, self.align_corners = 'bilinear', False

    def forward(self, x: Tensor) -> Tensor:
        size = [int(side * self.scale_factor) for side in x.shape[-2:]]
        return nn.functional.interpolate(x, size, None, self.mode, self.align_corners)


class Classifier(nn.Module):
    """A convolution and a linear layer: ``middle`` is called between them."""

    def __init__(self, middle: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 3, stride=2)
        self.middle = middle or nn.Identity()
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor, mode: str) -> Tensor:
        assert mode == 'tensor'
        x = self.middle(self.backbone(x).relu())
        return self.head(x[..., 1:, 2:].amax(dim=(2, 3)) + x.mean(dim=(2, 3)))


def classifier(middle: nn.Module | None = None) -> Classifier:
    torch.manual_seed(0)
    return Classifier(middle).eval()
