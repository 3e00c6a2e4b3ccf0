"""Two linear layers on the last axis with an activation between."""

from mmcv.cnn import build_activation_layer
from torch import Tensor, nn


class LinearMLP(nn.Module):
    """Mix channels at every position by itself: (..., C_in) -> (..., C_out).

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
        self.fc1 = nn.Linear(in_channels, hidden_channels)
        self.act = build_activation_layer(act_cfg)
        self.fc2 = nn.Linear(hidden_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))
