"""A linear layer over the positions of a map, shared by its channels."""

from torch import Tensor, nn

from mmwave.ops import spatial_fc


class TokenLinear(nn.Linear):
    """Mix positions of every channel alike: (N, P, C) -> (N, Q, C); ``TokenLinear(P, Q)``."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias[None]
        return spatial_fc(x.transpose(1, 2), self.weight[None], bias).transpose(1, 2)
