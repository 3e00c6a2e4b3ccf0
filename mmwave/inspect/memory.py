"""Measure the memory of a training step, counted allocation by allocation."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate

import torch
from torch import Tensor


def saved_bytes(forward: Callable[[], object], *, apart_from: Iterable[Tensor] = ()) -> int:
    """Return the bytes that autograd saves for the backward pass, every storage counted once.

    Autograd calls the innermost hooks only: tensors that the code saves under hooks of its own, as
    ``lean`` does, are not seen here. :func:`held_bytes` counts all.

    Args:
        forward: runs the forward pass.
        apart_from: tensors whose storages do not count: parameters and buffers.
    """
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        # Held until all are counted, so that no address is used twice.
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    for tensor in apart_from:
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storage.nbytes() for storage in storages.values())


def held_bytes(forward: Callable[[], object], device: torch.device | str = 'cpu') -> int:
    """Return the bytes that a forward pass allocates and does not free, outputs included."""
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        outputs = forward()
        held = int(torch.cuda.memory_allocated(device) - before)
    else:
        with _allocations() as changes:
            outputs = forward()
        held = sum(changes)
    del outputs
    return held


@contextmanager
def _allocations() -> Iterator[list[int]]:
    """Yield a list that holds, after the block, the bytes allocated and freed (< 0), in order."""
    # The profiler logs its start and stop up to this level.
    os.environ.setdefault('KINETO_LOG_LEVEL', '6')
    changes: list[int] = []
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        yield changes
    events = [e for e in profile.kineto_results.events() if e.name() == '[memory]']
    changes += [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]


def peak_bytes(step: Callable[[], object], device: torch.device | str = 'cpu') -> int:
    """Return the largest number of bytes that ``step`` holds at once beyond those held before it.

    Torch's own allocations, temporary ones included: from the profiler's record on the CPU, from
    the allocator's counter on a CUDA device.
    """
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    with _allocations() as changes:
        step()
    return max(accumulate(changes, initial=0))
