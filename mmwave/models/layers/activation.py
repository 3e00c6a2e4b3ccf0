"""Activations by their configs."""

from mmengine.registry import MODELS
from torch import nn

MMCV_ONLY = ('Clamp', 'Clip', 'HSigmoid', 'HSwish', 'Swish')
"""Names that mmcv alone registers; its other activations are torch's, under the same names."""


def build_activation(act_cfg: dict) -> nn.Module:
    """Build an activation that leaves its input as it is, whatever the config's ``inplace`` says.

    What goes into an activation is needed again in the backward pass: by the norm or the product
    that made it, or by the activation's own recomputation.

    Args:
        act_cfg: its ``type``, a class or a name, and arguments. Names are those registered in
            mmengine's ``MODELS`` or the default scope's, those of torch.nn, and mmcv's where mmcv
            is installed. A registered name wins over torch's.

    Raises:
        ValueError: for a name that is none of these.
    """
    act: nn.Module = _build(dict(act_cfg))
    for part in act.modules():
        if getattr(part, 'inplace', False):
            part.inplace = False
    return act


def _build(cfg: dict) -> nn.Module:
    kind, scope = cfg.get('type'), cfg.get('_scope_')
    if not isinstance(kind, str) or _is_registered(kind, scope):
        return MODELS.build(cfg)
    if kind in nn.modules.activation.__all__:
        options = {key: value for key, value in cfg.items() if key not in ('type', '_scope_')}
        return getattr(nn, kind)(**options)
    try:
        import mmcv.cnn  # noqa: F401  registers mmcv's
    except ImportError as error:
        if kind in MMCV_ONLY:
            raise ValueError(
                f"activation {kind!r} needs mmcv: pip install 'mmwave-suite[mmcv]', or name one of "
                'torch.nn, such as GELU, Hardswish or SiLU'
            ) from error
    if _is_registered(kind, scope):
        return MODELS.build(cfg)
    raise ValueError(
        f'unknown activation {kind!r}: expected one of torch.nn, such as GELU, ReLU or SiLU, one '
        f"of mmcv ({', '.join(MMCV_ONLY)}), or one registered in mmengine's MODELS"
    )


def _is_registered(name: str, scope: str | None) -> bool:
    """Whether ``MODELS.build`` finds it, in the registry of a scope or of the default one.

    Args:
        name: the config's ``type``.
        scope: its ``_scope_``, which mmengine adds to what it reads from another package's config.
    """
    with MODELS.switch_scope_and_registry(scope) as registry:
        return registry.get(name) is not None
