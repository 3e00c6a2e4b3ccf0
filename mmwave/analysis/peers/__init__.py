"""What our backbones are measured against: published code and libraries, per family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from torch import nn

from mmwave.models import (
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
from mmwave.models.backbones.posmlp import PosMLPArch
from mmwave.models.backbones.repmlpnet import RepMLPNetArch
from mmwave.structures import SizeConstraint

from . import eamlp, libraries, posmlp, repmlpnet, vip, wavemlp
from .libraries import CONTENDERS


class Other(NamedTuple):
    """A further implementation of a family.

    Attributes:
        levels: which of the model's outputs it gives, counted from 0.
        build: ``model -> module`` for the mode that the model, ours in train form, is in.
    """

    levels: tuple[int, ...]
    build: Callable[[Any], nn.Module]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """The published structure of a family, or a library's.

    All modules map images (N, C, H, W) to a tuple of maps, have a copy of the weights of the model
    that they are built of, give its outputs, and are in its mode, dtype and device. What they have
    as ``sizes`` tells which images they take.

    Attributes:
        backbone: our class.
        name: ``'published'``, or the library's.
        inference: ``model -> module`` in the form that the release infers with, of a model of ours
            in train form.
        training: the same in the form that the release trains. ``named_parameters`` has the names
            of the model's; shapes may differ by axes of length one.
        sizes: ``arch -> images`` that the peer takes.
        out_indices: what our model is built with: the levels that the peer has.
        settings: further arguments of our model, so that both compute the same.
        models: names of the archs that there is a peer of; None: all of them.
        others: further implementations, by the libraries' names.
        layout: memory layout that ours computes in; ours may round as the peer does in it.
    """

    backbone: type[MLPBackbone]
    inference: Callable[[Any], nn.Module]
    training: Callable[[Any], nn.Module]
    sizes: Callable[[Any], SizeConstraint]
    name: str = 'published'
    out_indices: tuple[int, ...] = (0, 1, 2, 3)
    settings: Mapping[str, Any] = field(default_factory=dict)
    models: tuple[str, ...] | None = None
    others: Mapping[str, Other] = field(default_factory=dict)
    layout: Literal['NCHW', 'NHWC'] = 'NCHW'


def _last(backbone: type[MLPBackbone], build: Callable[[Any], nn.Module], **fields: Any) -> Peer:
    """A peer of the last level alone that infers with what it trains."""
    return Peer(
        backbone=backbone, inference=build, training=build, out_indices=(libraries.LEVEL,), **fields
    )


PEERS: Mapping[str, Peer] = MappingProxyType(
    {
        'wavemlp': Peer(
            backbone=WaveMLP,
            inference=wavemlp.Published,
            training=wavemlp.Published,
            layout='NHWC',
            sizes=lambda arch: SizeConstraint(),
        ),
        'repmlpnet': Peer(
            backbone=RepMLPNet,
            inference=repmlpnet.PublishedDeploy,
            training=repmlpnet.PublishedTrain,
            sizes=RepMLPNetArch.filled_sizes,
            others={'mmpretrain': Other((3,), libraries.mmpretrain_repmlpnet)},
        ),
        'posmlp': _last(PosMLP, posmlp.Published, sizes=PosMLPArch.filled_sizes),
        'vip': _last(ViP, vip.Published, sizes=vip.sizes),
        'eamlp': _last(
            EAMLP, eamlp.Published, sizes=eamlp.sizes, settings={'token_drop_rate': 0.0}
        ),
        'gmlp': _last(GMLP, libraries.timm_gmlp, name='timm', sizes=libraries.plain_size),
        'resmlp': _last(ResMLP, libraries.timm_resmlp, name='timm', sizes=libraries.plain_size),
        'mlp_mixer': _last(
            MLPMixer,
            libraries.timm_mlp_mixer,
            name='timm',
            sizes=libraries.plain_size,
            others={'mmpretrain': Other((0,), libraries.mmpretrain_mlp_mixer)},
        ),
    }
)

__all__ = ['CONTENDERS', 'PEERS', 'Other', 'Peer']
