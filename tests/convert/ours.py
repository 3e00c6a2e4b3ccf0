"""What a converted file is good for: the model it describes, and what that computes."""

from typing import Any

import torch
from torch import Tensor

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
        (last,) = model_of(checkpoint, out_indices=(3,))(images.double())
    weight, bias = (checkpoint['state_dict'][f'head.fc.{x}'].double() for x in ('weight', 'bias'))
    return last.mean(dim=(2, 3)) @ weight.T + bias
