"""Runs that are stopped and resumed, held against those that nothing stopped, bit for bit."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmwave.apis import prepare_training, train
from mmwave.checkpoint import read_checkpoint
from mmwave.engine.checkpoints.plain import HISTORIES

OFF = "\ncustom_hooks = [*custom_hooks, dict(type='mmwave.ExactResumeHook', enabled=False)]\n"
_TIMES = ('time', 'memory')  # in names of what is logged and no part of the training
_count = itertools.count()


class Stopped(Exception):
    """A run ends here, as the test wants it."""


@HOOKS.register_module()
class StopHook(Hook):
    """Stop before an iteration."""

    def __init__(self, at: int) -> None:
        self.at = at

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == self.at:
            raise Stopped


def run(
    config: Path,
    work: Path,
    resume: str | Path | None = None,
    stop_at: int | None = None,
    alter: Callable[[Config], None] | None = None,
    **options: Any,
) -> Runner | None:
    """Train in this process; a run that is to stop before an iteration returns None.

    Args:
        config: of :func:`tests.faults.tasks.write_task`.
        work: folder.
        resume: ``'auto'`` or a checkpoint.
        stop_at: the iteration.
        alter: changes what was read.
        **options: of the config.
    """
    cfg = prepare_training(
        str(config),
        work_dir=str(work),
        resume=None if resume is None else str(resume),
        # mmengine tells runs apart by their names.
        cfg_options={'experiment_name': f'exact{next(_count)}-{work.name}', **options},
    )
    if alter:
        alter(cfg)
    if stop_at is not None:
        cfg.custom_hooks.append(dict(type='StopHook', at=stop_at))
    try:
        return train(cfg)
    except Stopped:
        return None


def differences(first: Path, second: Path) -> list[str]:
    """Return the names of what differs in two checkpoints, but for times and names of runs."""
    found: list[str] = []
    contents = [dict(read_checkpoint(path)) for path in (first, second)]
    for content in contents:
        meta = content.pop('meta')
        content['position'] = (meta['epoch'], meta['iter'], meta['seed'])
        hub = content.pop('message_hub')
        assert not hub['log_scalars']
        content['logged'] = {
            name: history
            for name, history in hub[HISTORIES].items()
            if not any(t in name for t in _TIMES)
        }
        assert 'train/loss' in content['logged']
    _compare(*contents, '', found)
    return found


def _compare(one, other, name: str, found: list[str]) -> None:
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            found.append(f'{name} has other keys')
            return
        for key in one:
            _compare(one[key], other[key], f'{name}.{key}', found)
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            found.append(f'{name} has another length')
        for index, pair in enumerate(zip(one, other, strict=False)):
            _compare(*pair, f'{name}[{index}]', found)
    elif isinstance(one, torch.Tensor):
        if not (isinstance(other, torch.Tensor) and torch.equal(one, other)):
            found.append(name)
    elif one != other:
        found.append(name)
