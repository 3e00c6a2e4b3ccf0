"""Deploy form of a layer per branch, their blend, a projection and the shortcut."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmwave.ops.mean import mean_over

from .deployed import ConstantLinear, ConstantMLP, add_blend
from .inplace import may_overwrite

MERGED_POSITIONS = 6
"""Least positions of a map, per channel, for which the matrices of an image are merged.

Merging costs 3 C^3 and saves C^2 a position, and no map is stored. Measured on a CPU, eight images:
at 56 x 56 positions of 64 channels it saves a sixth of the time, at 28 x 28 of 128 as much in
bfloat16 and nothing in float32, at 14 x 14 of 320 it would cost as much again.
"""


class BlendedBranches(nn.Module):
    r"""Compute :math:`s + P \sum_i a_i (W_i x_i + b_i) + p` with weights :math:`a_i` of the image.

    A weight per channel and branch, those of a channel summing to 1, is the softmax of ``reweight``
    of the mean of :math:`\sum_i (W_i x_i + b_i)`. That mean needs the inputs' means alone, so the
    weights are known before the products. On large maps the matrices :math:`P \mathrm{diag}(a_i)
    W_i` of each image are computed first and no branch's map is stored.

    Args:
        branches: a linear layer or 1 x 1 convolution C -> C for each branch, with or without bias.
        reweight: an MLP C -> branches * C; the weights of a channel are neighbours, see
            :func:`~mmwave.models.layers.branch_weights`.
        proj: a linear layer or 1 x 1 convolution C -> C with bias.
    """

    def __init__(self, branches: Sequence[nn.Module], reweight: nn.Module, proj: nn.Module) -> None:
        super().__init__()
        channels = proj.weight.shape[0]
        self.branches = nn.ModuleList(ConstantLinear(channels, channels) for _ in branches)
        self.reweight = ConstantMLP.like(reweight)
        self.proj = ConstantLinear(channels, channels)

    def forward(self, inputs: Sequence[Tensor], shortcut: Tensor) -> Tensor:
        """Map an input (N, H, W, C) per branch and the shortcut (N, H, W, C) to (N, H, W, C)."""
        weights = self._weights([mean_over(x, 1, 2) for x in inputs])
        _, height, width, channels = shortcut.shape
        if (
            may_overwrite(shortcut, *inputs)
            and shortcut.device.type == 'cpu'
            and height * width >= MERGED_POSITIONS * channels
        ):
            return self._merged(inputs, weights, shortcut)
        maps = [branch(x) for branch, x in zip(self.branches, inputs, strict=True)]
        return add_blend(shortcut, maps, [w[:, None, None] for w in weights], self.proj)

    def _weights(self, means: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map the inputs' means (N, C) to a weight (N, C) of each branch."""
        pooled = self.branches[0](means[0])
        for branch, mean in zip(self.branches[1:], means[1:], strict=True):
            pooled = pooled + branch(mean)
        logits = self.reweight(pooled).unflatten(1, (len(self.branches), -1))
        return logits.softmax(dim=1).unbind(dim=1)

    def _merged(
        self, inputs: Sequence[Tensor], weights: Sequence[Tensor], shortcut: Tensor
    ) -> Tensor:
        """Multiply each image by matrices of its own."""
        branches = list(self.branches)
        bias = sum(w * branch.bias for w, branch in zip(weights, branches, strict=True))
        total = shortcut + self.proj(bias)[:, None, None]
        rows = total.flatten(1, 2)
        for x, weight, branch in zip(inputs, weights, branches, strict=True):
            matrices = self.proj.weight @ (weight[..., None] * branch.weight)
            rows.baddbmm_(x.flatten(1, 2), matrices.transpose(1, 2))
        return total

    @staticmethod
    def fold(
        branches: Sequence[nn.Module], reweight: nn.Module, proj: nn.Module
    ) -> dict[str, Tensor]:
        """Return the state dict, of the layers that ``__init__`` gets."""
        state = {'proj.weight': proj.weight.flatten(1), 'proj.bias': proj.bias}
        for i, branch in enumerate(branches):
            bias = torch.zeros_like(proj.bias) if branch.bias is None else branch.bias
            state[f'branches.{i}.weight'] = branch.weight.flatten(1)
            state[f'branches.{i}.bias'] = bias
        weights = ConstantMLP.fold_reweight(reweight, len(branches))
        return state | {f'reweight.{k}': v for k, v in weights.items()}
