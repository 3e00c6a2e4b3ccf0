"""Vision-MLP backbones for classification, detection and segmentation on the OpenMMLab stack."""

from typing import TYPE_CHECKING, Any

# Here, so that whatever imports a part of mmwave, in any process, finds mmcv's ops, and the shipped
# models by name. Neither imports anything heavy itself.
from . import mmcv_ops, model_names

if TYPE_CHECKING:
    from .apis import load

__all__ = ['load', 'mmcv_ops', 'model_names']
__version__ = '0.1.0'


def __getattr__(name: str) -> Any:
    if name != 'load':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from .apis import load

    return load


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
