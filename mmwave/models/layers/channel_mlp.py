"""Two layers with an activation between: the channel mixing of vision MLPs."""

from collections.abc import Callable

from torch import Tensor, nn

from .activation import build_activation
from .linear import Linear
from .pointwise import PointwiseConv


class ChannelMLP(nn.Module):
    """Mix channels at every position by itself: (N, C_in, H, W) -> (N, C_out, H, W).

    Args:
        in_channels: C_in.
        hidden_channels: channels between the two layers.
        out_channels: C_out.
        act_cfg: config of the activation between them, see :func:`build_activation`.
    """

    layer: Callable[[int, int], nn.Module] = PointwiseConv
    """Makes a layer of as many inputs and outputs."""

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, act_cfg: dict
    ) -> None:
        super().__init__()
        self.fc1 = self.layer(in_channels, hidden_channels)
        self.act = build_activation(act_cfg)
        self.fc2 = self.layer(hidden_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class LinearMLP(ChannelMLP):
    """The same on the last axis: (..., C_in) -> (..., C_out)."""

    layer = Linear
