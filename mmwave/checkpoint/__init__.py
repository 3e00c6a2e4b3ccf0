"""Weight files: read without running code, loaded into modules loudly.

A torch checkpoint is a pickle, and a pickle is a program. Here it is read by an unpickler that
accepts a short list of names and looks up no other; a pickle of NumPy arrays, as Paddle writes
them, by the same with a shorter list. It makes descriptions only, which are checked against the
file's size before tensors are made of them. A file that asks for more is refused with the names of
what it asked for, and is read in full only where the caller says ``trust=True``.
"""

from .archives import opened_archive, read_into
from .loading import (
    LoadReport,
    check_settings,
    check_weights,
    load_matching,
    not_finite,
    not_finite_line,
    state_dict_of,
)
from .missing import MissingFileError
from .mmengine_loader import register_safe_loader
from .nodes import not_a_weight
from .notes import brief, equals
from .pickles import TRUST_FLAG, UntrustedCheckpointError, damaged, load_arrays
from .reading import container_of, read_checkpoint, sha256_of
from .whole import Progress, damage_of, progress_of
from .writing import (
    SUFFIXES,
    check_target,
    checkpoint_bytes,
    remove_leftovers,
    source_and_target,
    whole_file,
    write_checkpoint,
)

__all__ = [
    'SUFFIXES',
    'TRUST_FLAG',
    'LoadReport',
    'MissingFileError',
    'Progress',
    'UntrustedCheckpointError',
    'brief',
    'check_settings',
    'check_target',
    'check_weights',
    'checkpoint_bytes',
    'container_of',
    'damage_of',
    'damaged',
    'equals',
    'load_arrays',
    'load_matching',
    'not_a_weight',
    'not_finite',
    'not_finite_line',
    'opened_archive',
    'progress_of',
    'read_checkpoint',
    'read_into',
    'register_safe_loader',
    'remove_leftovers',
    'sha256_of',
    'source_and_target',
    'state_dict_of',
    'whole_file',
    'write_checkpoint',
]
