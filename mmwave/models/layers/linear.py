"""A linear layer through :func:`mmwave.ops.linear`."""

from torch import Tensor, nn

from mmwave.ops import linear


class Linear(nn.Linear):
    """Mix the channels of every position: (..., C_in) -> (..., C_out)."""

    constant = False
    """Whether the weight stays as it is, as a deploy form's; see :func:`mmwave.ops.linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, constant=self.constant)

    def parts(self, x: Tensor, channels: int) -> list[Tensor]:
        """The output channels in parts, each a product of its own and in memory of its own.

        Of one product, what follows would read parts of wide rows, at up to four times the cost,
        and its gradient would be put together of copies.

        Args:
            x: (..., C_in).
            channels: of every part.
        """
        parameters = self.weight.split(channels), self.bias.split(channels)
        return [linear(x, *each, constant=self.constant) for each in zip(*parameters, strict=True)]
