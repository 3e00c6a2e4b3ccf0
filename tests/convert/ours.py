"""The model that a converted file describes, and its outputs."""

from typing import Any

import torch
from torch import Tensor

from mmwave.convert.api import _apply_rules
from mmwave.convert.index import identify
from mmwave.convert.readers import Framework
from mmwave.convert.rules import Applied
from mmwave.convert.target import Target
from mmwave.models.backbones.base import MLPBackbone
from mmwave.registry import MODELS


def model_of(checkpoint: dict[str, Any], **settings: Any) -> MLPBackbone:
    """Build our backbone as the file's metadata describe it and load it strictly, in float64."""
    model = MODELS.build({**checkpoint['meta']['backbone'], **settings}).double()
    state = checkpoint['state_dict'].items()
    own = {k.removeprefix('backbone.'): v for k, v in state if k.startswith('backbone.')}
    model.load_state_dict(own, strict=True)
    return model.eval()


def logits_of(checkpoint: dict[str, Any], images: Tensor) -> Tensor:
    """Return the output of the published classifier: the last map's mean through a linear layer."""
    with torch.no_grad():
        (last,) = model_of(checkpoint, out_indices=-1)(images.double())
    weight, bias = (checkpoint['state_dict'][f'head.fc.{x}'].double() for x in ('weight', 'bias'))
    return last.mean(dim=(2, 3)) @ weight.T + bias


def recognised(
    shapes: dict[str, tuple[int, ...]], framework: Framework = 'pytorch'
) -> tuple[str, Target]:
    """Return the family and the model of a release's names and shapes, which must all fit."""
    with torch.device('meta'):
        tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
    family, release = identify(tensors, framework)
    target, _ = _apply_rules(family, release, tensors)
    return family.name, target


def converted(tensors: dict[str, Tensor]) -> tuple[Target, Applied]:
    """Return the model of a PyTorch release's tensors, and these under our names."""
    return _apply_rules(*identify(tensors, 'pytorch'), tensors)
