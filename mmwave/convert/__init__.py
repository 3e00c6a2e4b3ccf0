"""Published checkpoints to mmwave's: readers, rules that account for every tensor, tables."""

from .api import ConversionReport, convert_file
from .index import FAMILIES, identify
from .readers import Source, read

__all__ = ['FAMILIES', 'ConversionReport', 'Source', 'convert_file', 'identify', 'read']
