"""Layers that several backbones are built of."""

from .affine import Affine
from .channel_mlp import ChannelMLP
from .conv_embed import ConvEmbed
from .norm import batch_norms, batch_statistics_kept, build_norm

__all__ = [
    'Affine',
    'ChannelMLP',
    'ConvEmbed',
    'batch_norms',
    'batch_statistics_kept',
    'build_norm',
]
