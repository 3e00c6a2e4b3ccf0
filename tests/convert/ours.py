"""What a converted file is good for: the model it describes, and what that computes."""

from typing import Any

import torch
from torch import Tensor

from mmwave.convert.api import _ours
from mmwave.convert.family import Target
from mmwave.convert.index import identify
from mmwave.convert.readers import Framework
from mmwave.models.backbones.base import MLPBackbone
from mmwave.registry import MODELS


def model_of(checkpoint: dict[str, Any], **settings: Any) -> MLPBackbone:
    """Our backbone as the file's metadata describe it, its weights loaded strictly, in float64."""
    model = MODELS.build({**checkpoint['meta']['backbone'], **settings}).double()
    state = checkpoint['state_dict'].items()
    own = {k.removeprefix('backbone.'): v for k, v in state if k.startswith('backbone.')}
    model.load_state_dict(own, strict=True)
    return model.eval()


def logits_of(checkpoint: dict[str, Any], images: Tensor) -> Tensor:
    """The published classifier: the last map's average through a linear layer."""
    with torch.no_grad():
        (last,) = model_of(checkpoint, out_indices=-1)(images.double())
    weight, bias = (checkpoint['state_dict'][f'head.fc.{x}'].double() for x in ('weight', 'bias'))
    return last.mean(dim=(2, 3)) @ weight.T + bias


def recognised(shapes: dict[str, tuple[int, ...]], framework: Framework) -> tuple[str, Target]:
    """A release's family and model by its names and shapes; every tensor is accounted for."""
    with torch.device('meta'):
        tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
    family, release = identify(tensors, framework)
    target, _ = _ours(family, release, tensors, family.recognise)
    return family.name, target


def expected_of(
    backbone: type[MLPBackbone], classes: int = 0, **options: Any
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the backbone's classifier; without a head where ``classes`` is 0."""
    with torch.device('meta'):
        model = backbone(out_indices=-1, **options)
    found = {f'backbone.{k}': tuple(v.shape) for k, v in model.state_dict().items()}
    if classes:
        channels = model.stage_info[-1].channels
        found |= {'head.fc.weight': (classes, channels), 'head.fc.bias': (classes,)}
    return found
