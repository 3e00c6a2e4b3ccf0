"""A batch of images without a labelled pixel has no accuracy."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmwave.engine.model_wrapper import unwrapped
from mmwave.registry import HOOKS

_HEADS = {'decode': 'decode_head', 'aux': 'auxiliary_head'}
_PERFECT = 99.99  # percent


@HOOKS.register_module()
class IgnoredLabelsHook(Hook):
    """Take the accuracy out of a step of a segmentor whose labels are all ignored.

    mmseg gives such a batch an accuracy of 100 %. Neither log nor visualizer receives a value for
    it: what a line of the log shows is the accuracy of the last batch that has one.
    """

    # Before mmengine's hook takes the values down.
    priority = 'HIGHEST'

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if not isinstance(outputs, dict):
            return
        # Almost no other batch is perfect, so that labels are rarely looked at.
        perfect = [n for n, v in outputs.items() if '.acc' in n and float(v) > _PERFECT]
        if not perfect:
            return
        model = unwrapped(runner.model)
        for name in perfect:
            ignored = _ignored_index(model, name)
            if ignored is not None and not _has_labels(data_batch, ignored):
                del outputs[name]


def _ignored_index(model: nn.Module, name: str) -> int | None:
    """Return the label that the head ignores whose accuracy is ``name``."""
    key = next((key for lead, key in _HEADS.items() if name.startswith(lead)), '')
    head = getattr(model, key, None)
    if isinstance(head, nn.ModuleList):
        # decode_0.acc_seg, aux_1.acc_seg
        number = name.partition('.')[0].rpartition('_')[2]
        head = head[int(number)] if number.isdigit() and int(number) < len(head) else None
    return getattr(head, 'ignore_index', None)


def _has_labels(batch: Any, ignored: int) -> bool:
    maps = list(_label_maps(batch))
    return not maps or any(bool((labels != ignored).any()) for labels in maps)


def _label_maps(batch: Any) -> Iterator[Tensor]:
    samples = batch.get('data_samples') if isinstance(batch, Mapping) else None
    for sample in samples or ():
        labels = getattr(getattr(sample, 'gt_sem_seg', None), 'data', None)
        if isinstance(labels, torch.Tensor):
            yield labels
