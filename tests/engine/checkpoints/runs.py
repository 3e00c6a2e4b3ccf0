"""Runs of milliseconds that save checkpoints, and a disk that is full when a test says so."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmwave.checkpoint import writing

_count = 0


class Points(Dataset):
    """Two batches of two, all alike: a resumed run sees what a whole one sees."""

    metainfo: dict[str, Any] = {}

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {'inputs': torch.ones(3)}


class Regression(BaseModel):
    """A linear layer whose output is to be zero."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.register_buffer('mask', torch.tensor([0.0, float('-inf')]))

    def forward(self, inputs: Any, mode: str = 'tensor') -> Any:
        output = self.layer(torch.stack(list(inputs)))
        return {'loss': output.square().mean()} if mode == 'loss' else list(output)


class Rising(BaseMetric):
    """A score that is better after every epoch."""

    score = 0.0

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0)

    def compute_metrics(self, results: Any) -> dict[str, float]:
        Rising.score += 1
        return {'acc': Rising.score, 'mAP': -Rising.score}


def run(work: Path, epochs: int = 3, *, by_epoch: bool = True, **options: Any) -> Runner:
    """Return a runner that was not started; its two iterations an epoch are of SGD.

    Args:
        work: folder.
        epochs: or twice as many iterations.
        by_epoch: count epochs.
        **options: ``hooks`` beside the one that saves, ``resume``, ``load_from``, ``val`` to have
            validations, and the others of the hook that saves.
    """
    global _count
    _count += 1
    torch.manual_seed(0)
    hooks, val = options.pop('hooks', []), options.pop('val', False)
    of_run = {key: options.pop(key) for key in ('resume', 'load_from') if key in options}
    length = 'max_epochs' if by_epoch else 'max_iters'
    interval = 1 if by_epoch else 2
    loader = dict(batch_size=2, dataset=Points(), num_workers=0)
    train_loader = dict(
        loader,
        sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler', shuffle=False),
    )
    validation = dict(
        val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
        val_cfg={},
        val_evaluator=Evaluator(Rising()),
    )
    saves = dict(type='mmwave.CheckpointHook', by_epoch=by_epoch, interval=interval)
    return Runner(
        model=Regression(),
        work_dir=str(work),
        experiment_name=f'saves{_count}',
        train_dataloader=train_loader,
        train_cfg={
            'by_epoch': by_epoch,
            length: epochs if by_epoch else 2 * epochs,
            'val_interval': interval,
        },
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        default_hooks=dict(checkpoint={**saves, **options}),
        custom_hooks=hooks,
        randomness=dict(seed=1),
        env_cfg=dict(mp_cfg=dict(mp_start_method='fork')),
        default_scope='mmengine',
        **(validation if val else {}),
        **of_run,
    )


class _Full:
    """A file on a disk that is full after some bytes."""

    def __init__(self, file: Any, room: int, number: int) -> None:
        self._file, self._room, self._number = file, room, number

    def write(self, content: bytes) -> int:
        self._file.write(content[: self._room])
        raise OSError(self._number, os.strerror(self._number))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> '_Full':
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextmanager
def failing(*names: str, room: int = 100, number: int = errno.ENOSPC) -> Iterator[list[str]]:
    """Have writing files of these names fail after ``room`` bytes, once for each time it is named.

    Yields:
        The names of all files that are written, in order.
    """
    left, seen, new_part = list(names), [], writing._new_part

    def part_of(target: Path, mode: int | None) -> tuple[Path, Any]:
        part, file = new_part(target, mode)
        seen.append(target.name)
        if target.name in left:
            left.remove(target.name)
            return part, _Full(file, room, number)
        return part, file

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, '_new_part', part_of)
        yield seen
