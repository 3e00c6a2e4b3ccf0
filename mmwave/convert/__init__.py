"""Published weights to mmwave's: readers, rules that account for every tensor, tables."""

from .api import ConversionReport, Converted, convert_file, convert_model
from .index import FAMILIES, identify
from .readers import Source, read

__all__ = [
    'FAMILIES',
    'ConversionReport',
    'Converted',
    'Source',
    'convert_file',
    'convert_model',
    'identify',
    'read',
]
