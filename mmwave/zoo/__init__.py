"""Tables of the configs: figures are computed where they can be, else cited from the metafiles."""

from .complexity import Complexity, complexity
from .metafile import Entry, Result, Source, read_metafile, read_metafiles
from .names import LeafName
from .tables import Zoo, stale_tables, update_readmes

__all__ = [
    'Complexity',
    'Entry',
    'LeafName',
    'Result',
    'Source',
    'Zoo',
    'complexity',
    'read_metafile',
    'read_metafiles',
    'stale_tables',
    'update_readmes',
]
