"""One file a paper."""

from .base import MLPBackbone
from .repmlpnet import RepMLPNet
from .wavemlp import WaveMLP

__all__ = ['MLPBackbone', 'RepMLPNet', 'WaveMLP']
