"""Vision-MLP backbones for classification, detection and segmentation on the OpenMMLab stack."""

# Here, so that whatever imports a part of mmwave, in any process, finds mmcv's ops. It imports
# nothing heavy itself.
from . import mmcv_ops

__all__ = ['mmcv_ops']
__version__ = '0.1.0'
