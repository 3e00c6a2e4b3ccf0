"""Two point-wise layers with an activation between: the channel mixing of vision MLPs."""

from mmcv.cnn import build_activation_layer
from torch import Tensor, nn


class ChannelMLP(nn.Module):
    """Mix channels at every position by itself: (N, C_in, H, W) -> (N, C_out, H, W).

    Args:
        in_channels: C_in.
        hidden_channels: channels between the two layers.
        out_channels: C_out.
        act_cfg: activation between them, an mmcv activation config.
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, act_cfg: dict
    ) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(in_channels, hidden_channels, 1)
        self.act = build_activation_layer(act_cfg)
        self.fc2 = nn.Conv2d(hidden_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))
