"""How a process joins its group, how long it waits there, and how it leaves."""

import gc
from datetime import timedelta

import torch


def start_process_group(backend: str, seconds: float) -> None:
    """Start the default process group, unless there is one.

    Args:
        backend: as torch names it.
        seconds: after which a collective operation that others do not join fails.
    """
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(backend, timeout=timedelta(seconds=seconds))


def set_group_timeout(seconds: float) -> None:
    """Change the timeout of the default group, if there is one, for operations from here on."""
    if not torch.distributed.is_initialized():
        return
    if torch.distributed.get_backend() not in ('gloo', 'nccl'):
        return  # torch cannot change it there
    change = getattr(torch.distributed, 'set_timeout', None)
    if change is None:  # before torch 2.15
        change = torch.distributed.distributed_c10d._set_pg_timeout
    change(timedelta(seconds=seconds))


def leave_process_group() -> None:
    """Take the default process group down, if there is one, and end its threads.

    gloo's threads drop Python objects after every collective. One that does so while the
    interpreter is shutting down aborts a process whose work was done (SIGABRT, and torchrun
    reports a failed run). The threads end with the group's last reference, and a
    DistributedDataParallel holds one: callers let go of theirs first, and those in reference
    cycles are collected here.
    """
    if not torch.distributed.is_initialized():
        return
    gc.collect()
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
