"""What our backbones are measured against: the operations of the published code, per family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from torch import nn

from mmwave.models import MLPBackbone, RepMLPNet
from mmwave.models.backbones.repmlpnet import RepMLPNetArch
from mmwave.structures import SizeConstraint

from . import repmlpnet


@dataclass(frozen=True, kw_only=True)
class Peer:
    """The published structure of a family.

    Attributes:
        backbone: our class.
        inference: ``model -> module`` in the form that the release infers with, holding a copy of
            the weights of a model of ours in train form; it gives the same outputs.
        training: the same in the form that the release trains. Its parameters have the names of the
            model's, and their shapes up to axes of length one.
        sizes: ``arch -> images`` that the release takes.
    """

    backbone: type[MLPBackbone]
    inference: Callable[[Any], nn.Module]
    training: Callable[[Any], nn.Module]
    sizes: Callable[[Any], SizeConstraint]


PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        'repmlpnet': Peer(
            backbone=RepMLPNet,
            inference=repmlpnet.PublishedDeploy,
            training=repmlpnet.PublishedTrain,
            sizes=RepMLPNetArch.filled_sizes,
        ),
    }
)

__all__ = ['PEERS', 'Peer']
