"""A convolution that goes into graphs for any size as it is."""

from torch import Tensor, nn

from mmwave.ops import conv2d


class Conv2d(nn.Conv2d):
    """``torch.nn.Conv2d`` through :func:`mmwave.ops.conv2d`: padding with zeros, no dilation."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return conv2d(x, weight, bias, self.stride, self.padding, self.groups)
