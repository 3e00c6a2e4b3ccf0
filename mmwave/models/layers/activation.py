"""Activations by their mmcv configs."""

from mmcv.cnn import build_activation_layer
from torch import nn


def build_activation(act_cfg: dict) -> nn.Module:
    """Build an activation that leaves its input as it is, whatever the config's ``inplace`` says.

    What goes into an activation is needed again in the backward pass: by the norm or the product
    that made it, or by the activation's own recomputation.
    """
    act: nn.Module = build_activation_layer(act_cfg)
    for part in act.modules():
        if getattr(part, 'inplace', False):
            part.inplace = False
    return act
