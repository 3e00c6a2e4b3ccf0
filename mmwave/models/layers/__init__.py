"""Layers that several backbones are built of."""

from .activation import build_activation
from .affine import Affine
from .branches import blended, branch_weights
from .channel_mlp import ChannelMLP, LinearMLP
from .conv import Conv2d
from .conv_embed import ConvEmbed
from .drop_path import DropPath
from .halves import halves
from .linear import Linear
from .module import Module
from .norm import LayerNorm2d, affine_of, batch_norms, batch_statistics_kept, build_norm
from .pointwise import PointwiseConv
from .token_linear import TokenLinear

__all__ = [
    'Affine',
    'ChannelMLP',
    'Conv2d',
    'ConvEmbed',
    'DropPath',
    'LayerNorm2d',
    'Linear',
    'LinearMLP',
    'Module',
    'PointwiseConv',
    'TokenLinear',
    'affine_of',
    'batch_norms',
    'batch_statistics_kept',
    'blended',
    'branch_weights',
    'build_activation',
    'build_norm',
    'halves',
]
