"""Backbones and the layers they are made of."""

from .backbones import MLPBackbone, WaveMLP

__all__ = ['MLPBackbone', 'WaveMLP']
