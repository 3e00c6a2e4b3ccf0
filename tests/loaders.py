"""mmengine's checkpoint loader, which ``register_safe_loader`` changes for a whole process."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mm_checkpoint


@contextmanager
def loader_restored() -> Iterator[None]:
    """Behind the block, mmengine loads as it did in front of it."""
    schemes, from_http = dict(CheckpointLoader._schemes), mm_checkpoint.load_from_http
    try:
        yield
    finally:
        CheckpointLoader._schemes = schemes
        mm_checkpoint.load_from_http = from_http
