"""Parameters and multiply-accumulates of the model that a config builds.

The model is built and run on torch's meta device, which knows shapes only: no memory for weights,
no arithmetic, the same counts.
"""

from dataclasses import dataclass
from os import PathLike, fspath

import torch
from mmengine.registry import MODELS, DefaultScope

from mmwave.apis import load_config
from mmwave.inspect.complexity import count_macs, count_params


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """What a model costs.

    Attributes:
        params: elements of all parameters of the whole model, heads included.
        macs: multiply-accumulates of convolutions, linear layers and matrix products for one image.
            Norms, activations, poolings and other elementwise work are not counted.
        counted: what ``macs`` are of: ``'model'`` or ``'backbone'``.
    """

    params: int
    macs: int
    counted: str


def complexity(config: str | PathLike[str], size: tuple[int, int]) -> Complexity:
    """Count the model of ``config`` in eval mode for one image.

    A classifier is counted as a whole. Of a detector or segmentor only the backbone's MACs are
    counted: those of a two-stage detector's heads depend on the number of proposals.

    Args:
        config: a config file.
        size: height and width of the image in pixels.

    Raises:
        UserError: where ``config`` is no config.
        ValueError: where the backbone does not take images of that size.
    """
    cfg = load_config(fspath(config))
    classifier = cfg.default_scope == 'mmpretrain'
    if classifier:
        # Mixup and the like cost nothing here, and mmpretrain logs a line about them.
        cfg.model.train_cfg = None
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        model = MODELS.build(cfg.model).eval()
        image = torch.empty(1, cfg.model.backbone.get('in_channels', 3), *size)
    part = model if classifier else model.backbone
    return Complexity(
        params=count_params(model),
        macs=count_macs(part, image),
        counted='model' if classifier else 'backbone',
    )
