"""mmwave: the vision-MLP backbones of the literature, for classification, detection and segmentation."""

__version__ = '0.1.0'
