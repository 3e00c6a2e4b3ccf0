"""Two layers with an activation between: the channel mixing of vision MLPs."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmwave.ops import blend_, gelu_, linear, mlp_add_
from mmwave.ops.chunks import add_in_parts
from mmwave.ops.graphs import any_size, is_watched

from .activation import build_activation
from .lean import keep
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

    def forward(
        self,
        x: Tensor,
        norm: Callable[[Tensor], Tensor] | None = None,
        run: Callable[..., Any] = keep,
        modules: Iterable[nn.Module] | None = None,
    ) -> Tensor:
        """Return the MLP of ``norm(x)``, or of ``x`` where there is no norm.

        ``run`` is how it is run, see :func:`mmwave.models.layers.lean.runner`, to which ``modules``
        are those that ``norm`` uses.
        """
        hidden = run(self.fc1, norm, x, modules=modules)
        return run(self.fc2, self.act, hidden)


class LinearMLP(ChannelMLP):
    """The same on the last axis: (..., C_in) -> (..., C_out)."""

    layer = Linear


def spare(x: Tensor, *others: Tensor) -> bool:
    """Whether results of ``x``, which nobody else holds, and ``others`` may be written over it.

    That is where no graph is recorded, by autograd or by a compiler, nobody watches operations, and
    no type is promoted. It is for deploy forms: what :func:`lean` calls sees no graph, yet its
    inputs are kept.
    """
    recorded = torch.is_grad_enabled() or any_size() or is_watched()
    return not recorded and all(other.dtype == x.dtype for other in others)


def added(branch: Tensor, x: Tensor) -> Tensor:
    """``x + branch``, over ``branch`` where it is :func:`spare`."""
    return branch.add_(x) if spare(branch, x) else x + branch


def activated(act: nn.Module, x: Tensor) -> Tensor:
    """``act(x)``, over ``x`` where it is :func:`spare` and ``act`` a GELU.

    A large result in new memory costs several times its arithmetic on a CPU.
    """
    if type(act) is nn.GELU and spare(x):
        return gelu_(x, act.approximate)
    return act(x)


def linear_activated(x: Tensor, weight: Tensor, bias: Tensor | None, act: nn.Module) -> Tensor:
    """``act(linear(x, weight, bias))`` of a deploy form, in one pass where ``act`` is a GELU."""
    if type(act) is nn.GELU:
        return linear(x, weight, bias, gelu=act.approximate, constant=True)
    return act(linear(x, weight, bias, constant=True))


def blend_added(
    x: Tensor, maps: Sequence[Tensor], factors: Sequence[Tensor], proj: nn.Linear
) -> Tensor:
    """``x`` and a projection of maps summed up by factors, over ``maps[0]`` where it is spare.

    Args:
        x: (N, H, W, C).
        maps: each (N, H, W, C).
        factors: one for each map, (N, 1, 1, C).
        proj: a linear layer of a deploy form, C -> C.
    """
    if spare(x, *maps, *factors):
        return blend_(maps, factors, proj.weight, proj.bias, x)
    total = maps[0] * factors[0]
    for map_, factor in zip(maps[1:], factors[1:], strict=True):
        total = total + map_ * factor
    return x + proj(total)


def mlp_added(x: Tensor, normed: Tensor, mlp: nn.Module) -> Tensor:
    """``x + mlp(normed)`` of a deploy form, over ``x`` where it is :func:`spare`.

    Args:
        x: (..., C).
        normed: (..., C), which may be ``x`` itself.
        mlp: its ``fc1`` and ``fc2`` are linear layers or 1 x 1 convolutions.
    """
    weights = mlp.fc1.weight.flatten(1), mlp.fc1.bias, mlp.fc2.weight.flatten(1), mlp.fc2.bias

    def branch(rows: Tensor) -> Tensor:
        hidden = linear_activated(rows, *weights[:2], mlp.act)
        return linear(hidden, *weights[2:], constant=True)

    if not spare(x, normed):
        return x + branch(normed)
    x = x.contiguous()
    rows, given = (t.flatten(0, -2) for t in (x, normed))
    if type(mlp.act) is nn.GELU:
        mlp_add_(rows, given, *weights, gelu=mlp.act.approximate)
    else:
        add_in_parts(rows, given, branch)
    return x
