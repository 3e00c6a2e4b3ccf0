"""Backbones and the layers they are made of."""

from .backbones import MLPBackbone, RepMLPNet, WaveMLP

__all__ = ['MLPBackbone', 'RepMLPNet', 'WaveMLP']
