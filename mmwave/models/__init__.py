"""Backbones, necks and the layers they are made of."""

from .backbones import (
    EAMLP,
    GMLP,
    MLPBackbone,
    MLPMixer,
    PosMLP,
    RepMLPNet,
    ResMLP,
    ViP,
    WaveMLP,
)
from .necks import SimpleFeaturePyramid

__all__ = [
    'EAMLP',
    'GMLP',
    'MLPBackbone',
    'MLPMixer',
    'PosMLP',
    'RepMLPNet',
    'ResMLP',
    'SimpleFeaturePyramid',
    'ViP',
    'WaveMLP',
]
