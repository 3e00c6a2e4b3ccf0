"""Vision-MLP backbones for classification, detection and segmentation on the OpenMMLab stack."""

__version__ = '0.1.0'
