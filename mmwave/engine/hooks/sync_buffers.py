"""The same batch statistics in all processes whenever a model is validated or saved."""

from collections.abc import Iterable
from typing import Any

import torch
from mmengine.dist import all_reduce, get_comm_device, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from torch import Tensor

from mmwave.engine.training_state import averaged_models
from mmwave.registry import HOOKS


@HOOKS.register_module()
class SyncBuffersHook(Hook):
    """Give every process the mean over the processes of the model's buffers.

    Running means and variances of batch norms come from each process's own images. A validation
    would score every process's images by other statistics, and the checkpoint would hold those of
    the first process alone. They are averaged at the end of every epoch, before every validation
    and, in loops that count iterations, before a checkpoint is written.

    mmengine's hook of this name does so for the model alone, and not before checkpoints within an
    epoch. Here the buffers of averaged models (``EMAHook``) are averaged too, since those are what
    is validated and saved. Buffers that are the same in all processes keep every bit.
    """

    # After hooks that average weights, before the one that saves them.
    priority = 'LOW'

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        hooks = (hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
        if any(_saves_now(hook, runner) for hook in hooks):
            _synchronise(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        _synchronise(runner)

    def before_val(self, runner: Runner) -> None:
        _synchronise(runner)


def _saves_now(hook: CheckpointHook, runner: Runner) -> bool:
    """Return whether a hook that counts iterations saves after this one."""
    if hook.by_epoch:
        return False
    due = hook.every_n_train_iters(runner, hook.interval, hook.save_begin)
    return due or (hook.save_last and hook.is_last_train_iter(runner))


def _synchronise(runner: Runner) -> None:
    if get_world_size() > 1:
        models = (runner.model, *averaged_models(runner))
        average_buffers(buffer for model in models for buffer in model.buffers())


@torch.no_grad()
def average_buffers(buffers: Iterable[Tensor]) -> None:
    """Set buffers to their means over all processes, in place."""
    chosen = [buffer for buffer in buffers if buffer.numel() and not buffer.is_complex()]
    if not chosen:
        return
    # In float64 the mean of equal numbers of less precision is that number.
    device = get_comm_device()
    flat = torch.cat([buffer.detach().to(device, torch.float64).flatten() for buffer in chosen])
    all_reduce(flat)
    flat /= get_world_size()
    for buffer, mean in zip(chosen, flat.split([b.numel() for b in chosen]), strict=True):
        value = mean.view(buffer.shape).to(buffer)
        if not torch.equal(value, buffer):  # constants are left alone
            buffer.copy_(value)
