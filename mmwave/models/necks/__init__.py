"""Necks that mmdet, mmseg and mmpretrain do not have."""

from .simple_feature_pyramid import SimpleFeaturePyramid

__all__ = ['SimpleFeaturePyramid']
