"""The hook that checks the built data sets of a run.

It reads them through their ``get_data_info`` dicts, so it needs none of the task libraries.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmwave.errors import UserError
from mmwave.registry import HOOKS

from .coco_file import read_report
from .coco_truth import complete_truth
from .datasets import (
    coco_path,
    describe,
    folder,
    is_local,
    loads_labels,
    loads_masks,
    metainfo,
    unwrap,
)
from .findings import DataError, Findings
from .heads import ignore_index, num_classes, unfit_heads
from .label_maps import LabelRule, label_map_fault
from .samples import count_boxes, image_fault, label_fault
from .tally import add_tally

_BLOCK = 4096


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Check each data set once, before the loop that uses it; the validation set before training.

    Checked are, each process doing its share of every data set: that there are samples; that the
    image files are there; for detection that there are boxes and that they are finite; for
    segmentation that label maps have one channel, the size of their image and only labels that a
    class has; for classification that labels belong to a class; and that the heads of the model
    have as many outputs as the data set has classes. Boxes that cannot be learnt from (no area,
    outside of the image, unknown category) are counted in one warning.

    Args:
        max_files: how many label maps of a data set each process opens, evenly spaced; None for
            all.
        max_images: how many images of a data set each process looks up in the file system, evenly
            spaced; None for all.
        num_threads: files read at the same time.

    Raises:
        UserError: where one of the numbers is less than 1.
        DataError: (in the loops) where the data cannot be trained or evaluated on. The message
            names up to five offenders of each kind and counts them all; it is the same in every
            process.
    """

    priority = 'VERY_HIGH'

    def __init__(
        self,
        max_files: int | None = 2000,
        max_images: int | None = 200_000,
        num_threads: int = 8,
    ) -> None:
        for name, value in (('max_files', max_files), ('max_images', max_images)):
            if value is not None and value < 1:
                raise UserError(f'{name} must be None or at least 1, got {value}')
        if num_threads < 1:
            raise UserError(f'num_threads must be at least 1, got {num_threads}')
        self.max_files = max_files
        self.max_images = max_images
        self.num_threads = num_threads
        self._checked: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        self._check(runner, 'train', runner.train_dataloader)
        if runner.val_loop is not None:
            self._check(runner, 'val', runner.val_dataloader)

    def before_val(self, runner: Runner) -> None:
        self._check(runner, 'val', runner.val_dataloader)

    def before_test(self, runner: Runner) -> None:
        self._check(runner, 'test', runner.test_dataloader)

    def _check(self, runner: Runner, mode: str, dataloader: Any) -> None:
        loop = getattr(runner, f'{mode}_loop', None)
        for line in complete_truth(getattr(loop, 'evaluator', None)):
            runner.logger.warning(f'{mode} metric: {line}')
        for _, dataset, _ in unwrap(dataloader.dataset):
            if any(dataset is seen for seen in self._checked):
                continue
            start = time.perf_counter()
            found = self._gather(dataset, runner.model)
            label = f'{mode} data, {describe(dataset)}'
            self._judge(mode, label, dataset, found)
            for line in found.warnings():
                runner.logger.warning(f'{label}: {line}')
            runner.logger.info(
                f'{label}: checked in {time.perf_counter() - start:.1f} s; {found.summary()}'
            )
            self._checked.append(dataset)

    def _gather(self, dataset: Any, model: nn.Module) -> Findings:
        """Return what all processes found together, the same in every process."""
        rank, world_size = get_rank(), get_world_size()
        found = self._inspect(dataset, model, range(rank, len(dataset), world_size))
        if rank == 0:
            for text in unfit_heads(dataset, model):
                found.add('heads of another number of classes', -1, text)
            _add_faults_of_file(found, dataset)
        return Findings.merged(all_gather_object(found))

    def _inspect(self, dataset: Any, model: nn.Module, share: Sequence[int]) -> Findings:
        found = Findings(samples=len(share))
        if not share or not hasattr(dataset, 'get_data_info'):
            return found
        number = num_classes(dataset, model)
        look_up = set(spaced(share, self.max_images)) if is_local(dataset) else set()
        with ThreadPoolExecutor(self.num_threads) as pool:
            for start in range(0, len(share), _BLOCK):
                images = []
                for index in share[start : start + _BLOCK]:
                    info = dataset.get_data_info(index)
                    if 'instances' in info:
                        count_boxes(found, index, info)
                    elif 'gt_label' in info and number is not None:
                        fault = label_fault(info, number)
                        if fault is not None:
                            found.add('labels without a class', index, fault)
                    if index in look_up and isinstance(info.get('img_path'), str):
                        images.append((index, info['img_path']))
                found.images += len(images)
                _run(pool, found, images, image_fault)
            if is_local(dataset):
                self._inspect_label_maps(pool, found, dataset, model, share)
        return found

    def _inspect_label_maps(
        self,
        pool: ThreadPoolExecutor,
        found: Findings,
        dataset: Any,
        model: nn.Module,
        share: Sequence[int],
    ) -> None:
        first = dataset.get_data_info(share[0])
        # mmdet's infos have a seg_map_path as well; its maps follow other rules.
        if 'instances' in first or not first.get('seg_map_path') or not loads_labels(dataset):
            return
        rule = LabelRule(
            num_classes=num_classes(dataset, model),
            ignore_index=ignore_index(dataset, model),
            reduce_zero_label=bool(first.get('reduce_zero_label')),
            label_map=first.get('label_map'),
        )
        chosen = spaced(share, self.max_files)
        infos = ((index, dataset.get_data_info(index)) for index in chosen)
        paths = [(index, (info['img_path'], info['seg_map_path'])) for index, info in infos]
        found.label_maps += len(paths)
        _run(pool, found, paths, lambda pair: label_map_fault(pair[0], pair[1], rule))

    def _judge(self, mode: str, label: str, dataset: Any, found: Findings) -> None:
        """Raise :class:`DataError` where a loop cannot run on what was found."""
        problems = found.errors()
        if found.samples == 0:
            problems.append(_empty(dataset))
        elif found.boxes == 0:
            problems += _no_boxes(mode, dataset, found)
        if problems:
            raise DataError(f'{label}: ' + '; '.join(problems))


def spaced(items: Sequence[int], most: int | None) -> Sequence[int]:
    """Return at most ``most`` of the items, evenly spaced, the first and the last among them."""
    if most is None or len(items) <= most:
        return items
    positions = np.linspace(0, len(items) - 1, most).round().astype(int)
    return [items[position] for position in positions]


def _run(
    pool: ThreadPoolExecutor,
    found: Findings,
    items: Sequence[tuple[int, Any]],
    check: Callable[[Any], tuple[str, str] | None],
) -> None:
    """Run ``check``, which returns (kind of the fault, offender), on many files."""

    def check_some(some: Sequence[tuple[int, Any]]) -> list[tuple[int, tuple[str, str] | None]]:
        return [(index, check(item)) for index, item in some]

    # A task a file would cost more than looking the file up.
    slices = [items[start : start + 64] for start in range(0, len(items), 64)]
    for results in pool.map(check_some, slices):
        for index, fault in results:
            if fault is not None:
                found.add(fault[0], index, fault[1])


def _add_faults_of_file(found: Findings, dataset: Any) -> None:
    """Add what the data set has left out of its COCO file in silence."""
    path = coco_path(dataset)
    report = read_report(path) if path is not None else None
    if report is None:
        return
    masks = loads_masks(dataset)
    add_tally(found.faults, report.errors(masks=masks))
    add_tally(found.remarks, report.warnings(masks=masks))


def _empty(dataset: Any) -> str:
    suffix = getattr(dataset, 'img_suffix', None) or getattr(dataset, 'extensions', None)
    with_suffix = f' with suffix {suffix}' if suffix else ''
    return f'0 images found in {folder(dataset) or "the data set"}{with_suffix}'


def _no_boxes(mode: str, dataset: Any, found: Findings) -> list[str]:
    path = coco_path(dataset)
    report = read_report(path) if path is not None else None
    # The labels of a test set may be secret, so that it has no boxes by design.
    if mode == 'test' and report is not None and not report.num_annotations:
        return []
    classes = metainfo(dataset).get('classes')
    names = f'; categories of the file: {list(report.names)}' if report is not None else ''
    return [f'0 boxes in {found.samples} images; expected classes: {list(classes or ())}{names}']
