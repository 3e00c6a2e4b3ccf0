"""The data is looked at before the first step, not when a step stumbles over it.

The stock data sets load many mistakes in silence (label maps of another size, boxes that are all
dropped, labels that no class has); some fail hours later, some never. `DataCheckHook` looks at the
built data sets through their ``get_data_info`` dicts, so it needs none of the task libraries.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmwave.engine.coco_file import AnnotationFileError, find_box_faults, summarize
from mmwave.engine.data_faults import (
    DataError,
    Findings,
    LabelRule,
    box_faults,
    image_fault,
    is_local,
    label_fault,
    label_map_fault,
    spaced,
)
from mmwave.registry import HOOKS

__all__ = ['DataCheckHook', 'DataError']

_HEADS = (
    'decode_head',
    'auxiliary_head',
    'head',
    'bbox_head',
    'roi_head.bbox_head',
    'roi_head.mask_head',
)
_BLOCK = 4096


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Checks each data set once, before the loop that uses it; the validation set before training.

    Looked at are, each process doing its share of every data set: that there are samples; that the
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
        num_threads: files looked at at the same time.

    Raises:
        DataError: (in the loops) the data cannot be trained or evaluated on. The message names up
            to five offenders of each kind and counts them all; it is the same in every process.
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
                raise ValueError(f'{name} must be None or at least 1, got {value}')
        if num_threads < 1:
            raise ValueError(f'num_threads must be at least 1, got {num_threads}')
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
        for dataset in unwrap(dataloader.dataset):
            if any(dataset is seen for seen in self._checked):
                continue
            start = time.perf_counter()
            found = self._gather(dataset, runner.model)
            label = f'{mode} data, {_describe(dataset)}'
            self._judge(mode, label, dataset, found)
            for line in found.warnings():
                runner.logger.warning(f'{label}: {line}')
            runner.logger.info(
                f'{label}: checked in {time.perf_counter() - start:.1f} s; {found.summary()}'
            )
            self._checked.append(dataset)

    def _gather(self, dataset: Any, model: nn.Module) -> Findings:
        """What all processes found together; every process gets the same."""
        rank, world_size = get_rank(), get_world_size()
        found = self._inspect(dataset, model, range(rank, len(dataset), world_size))
        if rank == 0:
            _compare_heads(found, dataset, model)
            _look_into_ann_file(found, dataset)
        return Findings.merged(all_gather_object(found))

    def _inspect(self, dataset: Any, model: nn.Module, share: Sequence[int]) -> Findings:
        found = Findings(samples=len(share))
        if not share or not hasattr(dataset, 'get_data_info'):
            return found
        num_classes = _num_classes(dataset, model)
        look_up = set(spaced(share, self.max_images)) if is_local(dataset) else set()
        with ThreadPoolExecutor(self.num_threads) as pool:
            for start in range(0, len(share), _BLOCK):
                images = []
                for index in share[start : start + _BLOCK]:
                    info = dataset.get_data_info(index)
                    if 'instances' in info:
                        box_faults(found, index, info)
                    elif 'gt_label' in info and num_classes is not None:
                        fault = label_fault(info, num_classes)
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
        if 'instances' in first or not first.get('seg_map_path') or not _loads_labels(dataset):
            return
        rule = LabelRule(
            num_classes=_num_classes(dataset, model),
            ignore_index=_ignore_index(dataset, model),
            reduce_zero_label=bool(first.get('reduce_zero_label')),
            label_map=first.get('label_map'),
        )
        chosen = spaced(share, self.max_files)
        infos = ((index, dataset.get_data_info(index)) for index in chosen)
        paths = [(index, (info['img_path'], info['seg_map_path'])) for index, info in infos]
        found.label_maps += len(paths)
        _run(pool, found, paths, lambda pair: label_map_fault(*pair, rule))

    def _judge(self, mode: str, label: str, dataset: Any, found: Findings) -> None:
        """Raises DataError when the findings forbid to go on."""
        problems = found.errors()
        if found.samples == 0:
            problems.append(_empty(dataset))
        elif found.boxes == 0:
            problems += _no_boxes(mode, dataset, found)
        if problems:
            raise DataError(f'{label}: ' + '; '.join(problems))


def unwrap(dataset: Any) -> Iterator[Any]:
    """Goes through wrappers (RepeatDataset, ConcatDataset, …) down to the data sets inside."""
    if isinstance(dataset, BaseDataset):
        yield dataset
    elif hasattr(dataset, 'datasets'):
        for inner in dataset.datasets:
            yield from unwrap(inner)
    elif hasattr(dataset, 'dataset'):
        yield from unwrap(dataset.dataset)
    else:
        yield dataset


def _run(
    pool: ThreadPoolExecutor,
    found: Findings,
    items: Sequence[tuple[int, Any]],
    check: Callable[[Any], tuple[str, str] | None],
) -> None:
    """Runs `check` on many files; what it returns is (kind of the fault, offender)."""

    def check_some(some: Sequence[tuple[int, Any]]) -> list[tuple[int, tuple[str, str] | None]]:
        return [(index, check(item)) for index, item in some]

    # A task a file would cost more than looking the file up.
    slices = [items[start : start + 64] for start in range(0, len(items), 64)]
    for results in pool.map(check_some, slices):
        for index, fault in results:
            if fault is not None:
                found.add(fault[0], index, fault[1])


def _loads_labels(dataset: Any) -> bool:
    """Whether labels are read at all: a test set may have none, and its pipeline says so."""
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', None)
    return not transforms or any('Annotations' in type(t).__name__ for t in transforms)


def _metainfo(dataset: Any) -> dict[str, Any]:
    return getattr(dataset, 'metainfo', None) or {}


def _folder(dataset: Any) -> str:
    prefix = getattr(dataset, 'data_prefix', None) or {}
    return str(prefix.get('img_path') or prefix.get('img') or getattr(dataset, 'data_root', ''))


def _describe(dataset: Any) -> str:
    where = getattr(dataset, 'ann_file', None) or _folder(dataset)
    return f'{type(dataset).__name__} ({where})'


def _heads(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    # DistributedDataParallel and test-time augmentation keep the model in `module`.
    while isinstance(getattr(model, 'module', None), nn.Module):
        model = model.module
    for path in _HEADS:
        head: Any = model
        for name in path.split('.'):
            head = getattr(head, name, None)
        if isinstance(head, nn.ModuleList):
            yield from ((f'{path}.{index}', inner) for index, inner in enumerate(head))
        elif head is not None:
            yield path, head


def _num_classes(dataset: Any, model: nn.Module) -> int | None:
    classes = _metainfo(dataset).get('classes')
    if classes is not None:
        return len(classes)
    return next((n for _, h in _heads(model) if (n := getattr(h, 'num_classes', None))), None)


def _ignore_index(dataset: Any, model: nn.Module) -> int:
    """The label that the loss leaves out: the head decides, not the data set."""
    for name, head in _heads(model):
        if name.startswith('decode_head') and getattr(head, 'ignore_index', None) is not None:
            return head.ignore_index
    return getattr(dataset, 'ignore_index', 255)


def _compare_heads(found: Findings, dataset: Any, model: nn.Module) -> None:
    classes = _metainfo(dataset).get('classes')
    if classes is None:
        return
    for name, head in _heads(model):
        outputs = getattr(head, 'num_classes', None)
        if outputs is not None and outputs != len(classes):
            found.add(
                'heads of another number of classes',
                -1,
                f'model.{name}.num_classes is {outputs}, the data has {len(classes)} classes',
            )


def _look_into_ann_file(found: Findings, dataset: Any) -> None:
    """Looks for the boxes of a COCO file that the data set has already dropped in silence."""
    path = _coco_path(dataset)
    if found.boxes is None or path is None:
        return
    try:
        faults = find_box_faults(path)
    except AnnotationFileError:
        # The data set has read its boxes from it already: a format of its own.
        return
    if faults is None:
        return
    for ann_id in faults.non_finite:
        found.add('annotations with NaN or infinite boxes', -1, f'id {ann_id}')
    found.in_file = faults


def _coco_path(dataset: Any) -> str | None:
    path = getattr(dataset, 'ann_file', None)
    json_file = isinstance(path, str) and path.endswith('.json')
    return path if json_file and is_local(dataset) and '://' not in path else None


def _empty(dataset: Any) -> str:
    suffix = getattr(dataset, 'img_suffix', None) or getattr(dataset, 'extensions', None)
    with_suffix = f' with suffix {suffix}' if suffix else ''
    return f'0 images found in {_folder(dataset) or "the data set"}{with_suffix}'


def _no_boxes(mode: str, dataset: Any, found: Findings) -> list[str]:
    path = _coco_path(dataset)
    summary = summarize(path) if path is not None else None
    # A test set whose labels are kept secret has none by design.
    if mode == 'test' and summary is not None and not summary.has_annotations:
        return []
    classes = _metainfo(dataset).get('classes')
    names = f'; categories of the file: {list(summary.names)}' if summary is not None else ''
    return [f'0 boxes in {found.samples} images; expected classes: {list(classes or ())}{names}']
