"""Published weights to mmwave's: readers, and rules that account for every tensor."""

from .api import ConversionReport, Converted, convert_file, convert_model, published_names
from .index import families, identify
from .readers import Source, read

__all__ = [
    'ConversionReport',
    'Converted',
    'Source',
    'convert_file',
    'convert_model',
    'families',
    'identify',
    'published_names',
    'read',
]
