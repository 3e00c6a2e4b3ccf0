"""Norm layers by their short names, and care for the statistics of batch norms."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmwave.deploy.fuse import norm_affine

NORMS: Mapping[str, Callable[[int], nn.Module]] = MappingProxyType(
    {
        'BN': nn.BatchNorm2d,
        # One group: over all channels and positions of an image, the papers' "LayerNorm" on maps.
        'GN': partial(nn.GroupNorm, 1),
    }
)
"""By their name in OpenMMLab's configs: the norm of so many channels."""


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of each position by itself: (N, C, H, W) -> the same."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def build_norm(name: str, channels: int) -> nn.Module:
    """The norm called ``name``, a key of :data:`NORMS`, for (N, C, H, W) maps."""
    return NORMS[name](channels)


def affine_of(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift per channel, (C,) each, that a deploy form can fold into layers beside.

    Those of a batch norm in eval mode are all it does; a layer or group norm has normed before.
    """
    if not is_batch_norm(norm):
        return norm.weight, norm.bias
    return norm_affine(norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module is a norm with running statistics, mmcv's synchronised one included."""
    return getattr(module, 'running_mean', None) is not None


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """The norms with running statistics below ``module``."""
    return [m for m in module.modules() if is_batch_norm(m)]


@contextmanager
def batch_statistics_kept(module: nn.Module) -> Iterator[None]:
    """Inside, batch norms in training mode normalise as ever but do not update their statistics.

    Activation checkpointing runs a block's forward pass twice; without this its running statistics
    would be updated twice from one batch.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    kept = [(m.momentum, m.num_batches_tracked.clone()) for m in norms]
    for norm in norms:
        # The buffers must still go in, or the recomputed graph would differ from the first.
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, kept, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(counter)
