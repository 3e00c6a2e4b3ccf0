"""A linear layer through :func:`mmwave.ops.linear`."""

from torch import Tensor, nn

from mmwave.ops import linear


class Linear(nn.Linear):
    """Mix the channels of every position: (..., C_in) -> (..., C_out)."""

    constant = False
    """Whether the weight stays as it is, as a deploy form's; see :func:`mmwave.ops.linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, constant=self.constant)

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The first and the second half of the output channels, each a product of its own.

        Of one product, what follows would read parts of wide rows, and its gradient would be put
        together of copies.
        """
        parameters = self.weight.chunk(2), self.bias.chunk(2)
        first, second = (linear(x, *each) for each in zip(*parameters, strict=True))
        return first, second
