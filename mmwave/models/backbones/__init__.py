"""One file a paper."""

from .base import MLPBackbone
from .eamlp import EAMLP
from .gmlp import GMLP
from .mlp_mixer import MLPMixer
from .posmlp import PosMLP
from .repmlpnet import RepMLPNet
from .resmlp import ResMLP
from .vip import ViP
from .wavemlp import WaveMLP

__all__ = [
    'EAMLP',
    'GMLP',
    'MLPBackbone',
    'MLPMixer',
    'PosMLP',
    'RepMLPNet',
    'ResMLP',
    'ViP',
    'WaveMLP',
]
