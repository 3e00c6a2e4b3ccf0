"""One file a paper."""

from .base import MLPBackbone
from .wavemlp import WaveMLP

__all__ = ['MLPBackbone', 'WaveMLP']
