"""Vision-MLP backbones for classification, detection and segmentation on the OpenMMLab stack."""

# Here, so that whatever imports a part of mmwave, in any process, finds mmcv's ops, and the shipped
# models by name. Neither imports anything heavy itself.
from . import mmcv_ops, model_names

__all__ = ['mmcv_ops', 'model_names']
__version__ = '0.1.0'
