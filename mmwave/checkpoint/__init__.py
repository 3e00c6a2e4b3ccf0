"""Weight files: read without running code, loaded into modules loudly.

A torch checkpoint is a pickle, and a pickle is a program. Here it is read by torch's restricted
unpickler with a short list of what else may be in it, and a pickle of NumPy arrays, as Paddle
writes them, by one that knows nothing else. A file that asks for more is refused with the names of
what it asked for, and is read in full only where the caller says ``trust=True``.
"""

from .loading import LoadReport, check_settings, load_matching, state_dict_of
from .pickles import TRUST_FLAG, UntrustedCheckpointError, load_arrays
from .reading import container_of, read_checkpoint, register_safe_loader, sha256_of
from .writing import SUFFIXES, check_target, write_checkpoint

__all__ = [
    'SUFFIXES',
    'TRUST_FLAG',
    'LoadReport',
    'UntrustedCheckpointError',
    'check_settings',
    'check_target',
    'container_of',
    'load_arrays',
    'load_matching',
    'read_checkpoint',
    'register_safe_loader',
    'sha256_of',
    'state_dict_of',
    'write_checkpoint',
]
