"""A strided convolution, a norm, an activation: a pyramid's stem and steps between its stages."""

from torch import Tensor, nn

from .conv import Conv2d


class ConvEmbed(nn.Module):
    """Embed patches: (N, C_in, H, W) -> (N, C_out, H', W').

    H' = floor((H + 2 padding - kernel_size) / stride) + 1, and W' alike.

    Args:
        in_channels: C_in.
        out_channels: C_out.
        kernel_size: side of the kernel in pixels.
        stride: step of the kernel in pixels.
        padding: zeros put on every side, in pixels.
        norm: norm over C_out channels, or None for none.
        bias: whether the convolution has a bias.
        act: activation behind the norm, or None for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int,
        padding: int,
        norm: nn.Module | None,
        bias: bool = True,
        act: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=bias)
        self.norm = nn.Identity() if norm is None else norm
        self.act = nn.Identity() if act is None else act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))
