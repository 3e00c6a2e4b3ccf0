"""Fully connected layers over the positions of a window, shared by channels."""

from torch import Tensor

from ..backend import select
from .onednn import spatial_fc_onednn
from .reference import spatial_fc_reference

_IMPLEMENTATIONS = {'onednn': spatial_fc_onednn, 'reference': spatial_fc_reference}


def spatial_fc(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""Mix the positions of every channel by a matrix that channels share.

    .. math:: y_{n,c} = W_{c \bmod S}\, x_{n,c} + b_{c \bmod S}

    Args:
        x: (N, C, P), P positions of C channels.
        weight: (S, Q, P), S matrices; channel c uses matrix c mod S, and S divides C.
        bias: (S, Q), or None for none.

    Returns:
        (N, C, Q).

    Raises:
        ValueError: where the shapes do not fit each other; the message names them.

    Source: Ding et al., RepMLPNet: Hierarchical Vision MLP with Re-parameterized Locality, CVPR
    2022, arXiv:2112.11081; DingXiaoH/RepMLP ``repmlpnet.py`` (``fc3`` of class RepMLPBlock). With
    S = 1 it is the token mixing of MLP-Mixer, ResMLP and gMLP.
    """
    if x.dim() != 3 or weight.dim() != 3 or x.shape[2] != weight.shape[2]:
        raise ValueError(
            f'expected x (N, C, P) and weight (S, Q, P), got {tuple(x.shape)} '
            f'and {tuple(weight.shape)}'
        )
    if x.shape[1] % weight.shape[0]:
        raise ValueError(f'{weight.shape[0]} matrices do not divide {x.shape[1]} channels')
    if bias is not None and bias.shape != weight.shape[:2]:
        raise ValueError(f'bias has shape {tuple(bias.shape)}: expected {tuple(weight.shape[:2])}')
    tensors = (x, weight) if bias is None else (x, weight, bias)
    return select('spatial_fc', _IMPLEMENTATIONS, *tensors)(*tensors)


__all__ = ['spatial_fc', 'spatial_fc_reference']
