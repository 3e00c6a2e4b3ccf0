"""What a module of this folder declares: a peer of a family, another library's implementation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from mmwave.models import MLPBackbone
from mmwave.structures import SizeConstraint


class Other(NamedTuple):
    """A further implementation of a family.

    Attributes:
        levels: which of the model's outputs it returns, counted from 0.
        build: ``model -> module`` for the mode that the model, ours in train form, is in.
    """

    levels: tuple[int, ...]
    build: Callable[[Any], nn.Module]


@dataclass(frozen=True, kw_only=True)
class Peer:
    """The published structure of a family, or a library's.

    All modules map images (N, C, H, W) to a tuple of maps, have a copy of the weights of the model
    that they are built from, return its outputs, and are in its mode, dtype and device. Their
    ``sizes`` states which images they accept.

    Attributes:
        backbone: our class.
        name: ``'published'``, or the library's.
        inference: ``model -> module`` in the form that the release infers with, from a model of
            ours in train form.
        training: the same in the form that the release trains. ``named_parameters`` has the names
            of the model's; shapes may differ by axes of length one.
        sizes: ``arch -> images`` that the peer accepts.
        out_indices: what our model is built with: the levels that the peer has.
        settings: further arguments of our model, so that both compute the same.
        others: further implementations, by the libraries' names.
        layout: memory layout that ours computes in; ours may round as the peer does in it.
        kernels: dtypes for which the family's deploy form has C++ kernels.
        check_ops: ``(dtype, device)`` -> None; raises :class:`~..equality.Unequal` where a backend
            of an op of this family is wrong.
        suites: suite of ``run_suites.py`` -> what of the family it measures: archs, or configs.
    """

    backbone: type[MLPBackbone]
    inference: Callable[[Any], nn.Module]
    training: Callable[[Any], nn.Module]
    sizes: Callable[[Any], SizeConstraint]
    name: str = 'published'
    out_indices: tuple[int, ...] = (0, 1, 2, 3)
    settings: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Other] = field(default_factory=dict)
    layout: Literal['NCHW', 'NHWC'] = 'NCHW'
    kernels: tuple[str, ...] = ('bfloat16',)
    check_ops: Callable[[torch.dtype, Any], None] | None = None
    suites: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def last_level(
    backbone: type[MLPBackbone], build: Callable[[Any], nn.Module], **fields: Any
) -> Peer:
    """Return a peer of the last level alone that infers with what it trains."""
    return Peer(backbone=backbone, inference=build, training=build, out_indices=(3,), **fields)


def family_of(backbone: type) -> str:
    """Return the name of a backbone's family: that of its module."""
    return backbone.__module__.rpartition('.')[2]
