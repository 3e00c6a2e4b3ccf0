"""Layers of deploy forms: their weights are constant, and nothing is differentiated."""

from collections.abc import Sequence

from torch import Tensor, nn

from mmwave.deploy.fuse import fuse_norm_after, fuse_norm_before
from mmwave.ops import blend_, linear, mlp_add_
from mmwave.ops.chunks import add_in_parts

from .branches import by_branch
from .inplace import may_overwrite
from .linear import Linear
from .norm import affine_of, is_batch_norm


class ConstantLinear(Linear):
    """A linear layer whose weight is constant: (..., C_in) -> (..., C_out).

    Products may use a copy of it in another memory layout, see :func:`mmwave.ops.linear`.
    """

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, constant=True)

    @classmethod
    def like(cls, layer: nn.Linear) -> 'ConstantLinear':
        """A layer of the same size, its values yet to be loaded."""
        return cls(layer.in_features, layer.out_features, bias=layer.bias is not None)


def linear_activated(x: Tensor, weight: Tensor, bias: Tensor | None, act: nn.Module) -> Tensor:
    """``act(linear(x, weight, bias))`` of constant weights, in one pass for a GELU."""
    if type(act) is nn.GELU:
        return linear(x, weight, bias, gelu=act.approximate, constant=True)
    return act(linear(x, weight, bias, constant=True))


class ConstantMLP(nn.Module):
    """A channel MLP with constant weights: (..., C_in) -> (..., C_out).

    Args:
        fc1: a linear layer or a 1 x 1 convolution.
        act: the activation between.
        fc2: as ``fc1``.
    """

    def __init__(self, fc1: nn.Module, act: nn.Module, fc2: nn.Module) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = fc1, act, fc2

    @classmethod
    def like(cls, mlp: nn.Module) -> 'ConstantMLP':
        """An MLP of the sizes of ``mlp``, with its activation."""
        fc1, fc2 = (
            ConstantLinear(layer.weight.shape[1], layer.weight.shape[0])
            for layer in (mlp.fc1, mlp.fc2)
        )
        return cls(fc1, mlp.act, fc2)

    @staticmethod
    def fold(mlp: nn.Module, norm: nn.Module | None = None) -> dict[str, Tensor]:
        """The state dict that computes ``mlp``, behind the scale and shift of a norm."""
        weight, bias = mlp.fc1.weight.flatten(1), mlp.fc1.bias
        if norm is not None:
            weight, bias = fuse_norm_before(weight, bias, *affine_of(norm))
        state = {f'act.{k}': v for k, v in mlp.act.state_dict().items()}
        state |= {'fc1.weight': weight, 'fc1.bias': bias}
        return state | {'fc2.weight': mlp.fc2.weight.flatten(1), 'fc2.bias': mlp.fc2.bias}

    @classmethod
    def fold_reweight(cls, reweight: nn.Module, branches: int = 3) -> dict[str, Tensor]:
        """The state dict of an MLP for weights of branches, those of a branch side by side."""
        state = cls.fold(reweight)
        return state | {k: by_branch(state[k], branches) for k in ('fc2.weight', 'fc2.bias')}

    def forward(self, x: Tensor) -> Tensor:
        return self._mlp(x, *self._weights())

    def add_to(self, x: Tensor, normed: Tensor) -> Tensor:
        """Return ``x + mlp(normed)``, in place of ``x`` where that may be overwritten.

        Args:
            x: (..., C).
            normed: (..., C), which may be ``x`` itself.
        """
        weights = self._weights()
        if not may_overwrite(x, normed):
            return x + self._mlp(normed, *weights)
        x = x.contiguous()
        rows, source = (t.flatten(0, -2) for t in (x, normed))
        if type(self.act) is nn.GELU:
            mlp_add_(rows, source, *weights, gelu=self.act.approximate)
        else:
            add_in_parts(rows, source, lambda part: self._mlp(part, *weights))
        return x

    def _weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Matrices and biases of both layers."""
        fc1, fc2 = self.fc1, self.fc2
        return fc1.weight.flatten(1), fc1.bias, fc2.weight.flatten(1), fc2.bias

    def _mlp(
        self, x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor
    ) -> Tensor:
        hidden = linear_activated(x, weight1, bias1, self.act)
        return linear(hidden, weight2, bias2, constant=True)


def add_blend(
    x: Tensor, maps: Sequence[Tensor], factors: Sequence[Tensor], proj: nn.Linear
) -> Tensor:
    """``x`` and a projection of maps summed up by factors, in place of ``maps[0]`` if that may be.

    Args:
        x: (N, H, W, C).
        maps: each (N, H, W, C).
        factors: one for each map, (N, 1, 1, C).
        proj: C -> C, with constant weights.
    """
    if may_overwrite(x, *maps, *factors):
        return blend_(maps, factors, proj.weight, proj.bias, x)
    total = maps[0] * factors[0]
    for map_, factor in zip(maps[1:], factors[1:], strict=True):
        total = total + map_ * factor
    return x + proj(total)


class ConstantEmbed(nn.Module):
    """A :class:`~mmwave.models.layers.ConvEmbed` with its batch norm folded into the convolution.

    Args:
        embed: one of the train form, whose sizes, norm without statistics and activation it has.
    """

    def __init__(self, embed: nn.Module) -> None:
        super().__init__()
        conv = embed.conv
        self.conv = type(conv)(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            groups=conv.groups,
        )
        self.norm = nn.Identity() if is_batch_norm(embed.norm) else embed.norm
        self.act = embed.act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))

    @staticmethod
    def fold(embed: nn.Module) -> dict[str, Tensor]:
        """The tensors of the embedding in deploy form."""
        weight, bias = embed.conv.weight, embed.conv.bias
        state = {f'act.{k}': v for k, v in embed.act.state_dict().items()}
        if is_batch_norm(embed.norm):
            weight, bias = fuse_norm_after(weight, bias, *affine_of(embed.norm))
        else:
            state |= {f'norm.{k}': v for k, v in embed.norm.state_dict().items()}
        return state | {'conv.weight': weight, 'conv.bias': bias}
