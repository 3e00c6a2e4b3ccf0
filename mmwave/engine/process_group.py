"""How a process leaves its group."""

import gc

import torch


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
