"""Tables of the configs: figures are computed where they can be, else cited from the metafiles."""

from mmwave.inspect.windows import GridFacts

from .complexity import Complexity, complexity
from .metafile import Collection, Entry, Result, Source, read_metafile, read_metafiles
from .names import LeafName
from .published import Deviation, deviation
from .readmes import stale_tables, update_readmes
from .sizes import ImageCost, grid_facts, image_costs
from .tables import Zoo

__all__ = [
    'Collection',
    'Complexity',
    'Deviation',
    'Entry',
    'GridFacts',
    'ImageCost',
    'LeafName',
    'Result',
    'Source',
    'Zoo',
    'complexity',
    'deviation',
    'grid_facts',
    'image_costs',
    'read_metafile',
    'read_metafiles',
    'stale_tables',
    'update_readmes',
]
