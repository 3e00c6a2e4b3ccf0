"""The hook that checks the built data sets of a run.

It reads them through their ``get_data_info`` dicts, so it needs none of the task libraries.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmwave.errors import UserError
from mmwave.registry import HOOKS

from . import coco_form, coco_use
from .class_shares import note_classes
from .coco_file import AnnotationFileError
from .coco_truth import fill_in
from .datasets import (
    coco_path,
    describe,
    folder,
    is_local,
    metainfo,
    reads_coco,
    unwrap,
    wrappers_of,
)
from .findings import DataError, Findings
from .heads import num_classes, unfit_heads
from .image_sample import look_into, sample_of, settle
from .label_maps import inspect_label_maps, label_rule
from .label_reading import map_reading
from .pipeline import image_step, reads_images, steps
from .samples import count_boxes, count_labels, image_fault, is_leftover, label_fault
from .skipping import (
    LIST_NAME,
    BrokenList,
    can_skip,
    describe_entry,
    name_broken_image,
    skip_broken_images,
)
from .splits import has_fewer_folders, split_fault, split_notes

_BLOCK = 4096


@HOOKS.register_module()
class DataCheckHook(Hook):
    """Check each data set once, before the loop that uses it; the validation set before training.

    Checked are, each process doing its share of every data set: that there are samples; that the
    image files are there; for detection that there are boxes and that they are finite; for
    segmentation that label maps have one channel, the size of their image and only labels that a
    class has; for classification that labels belong to a class; that the heads of the model have
    as many outputs as the data set has classes; and that a label means the same in training and
    validation data. Boxes that cannot be learnt from (no area, outside of the image, unknown
    category) are counted in one warning; classes without a pixel or a sample, and folders that
    hardly are classes, are named in others. The share of the pixels that each class has is logged.

    Label maps are judged where mmseg's own ``LoadAnnotations`` reads them and all other steps, the
    data set's class and the preprocessor are stock too; else a missing file alone is named.

    Images that mmcv's ``LoadImageFromFile`` cannot read are looked for in a sample. Training skips
    them, also those that turn up later, names them and lists them in ``broken_images.txt`` beside
    the log, until there are too many; in an evaluation the first ends the run.

    Args:
        max_files: how many label maps of a data set each process opens, evenly spaced; None for
            all.
        max_images: how many images of a data set each process looks up in the file system, evenly
            spaced; None for all.
        max_headers: how many image files of a data set each process opens, evenly spaced among
            those that it looks up; None for all.
        max_broken_images: how many different images that cannot be read training may skip; 0 ends
            the run with the first.
        num_threads: files read at the same time.
        decode_images: decode every image that is opened, which takes as long as an epoch's loading.

    Raises:
        UserError: where one of the numbers is less than 1, or ``max_broken_images`` than 0.
        DataError: (in the loops) where the data cannot be trained or evaluated on. The message
            names up to five offenders of each kind and counts them all; it is the same in every
            process.
    """

    priority = 'VERY_HIGH'

    def __init__(
        self,
        max_files: int | None = 2000,
        max_images: int | None = 200_000,
        max_headers: int | None = 5000,
        max_broken_images: int = 10,
        num_threads: int = 8,
        decode_images: bool = False,
    ) -> None:
        most = {'max_files': max_files, 'max_images': max_images, 'max_headers': max_headers}
        for name, value in most.items():
            if value is not None:
                _check_number(name, value, 1, 'None or ')
        _check_number('max_broken_images', max_broken_images, 0)
        _check_number('num_threads', num_threads, 1)
        self.max_files = max_files
        self.max_images = max_images
        self.max_headers = max_headers
        self.max_broken_images = max_broken_images
        self.num_threads = num_threads
        self.decode_images = decode_images
        self._broken: BrokenList | None = None
        self._checked: list[Any] = []
        self._with_fewer_folders: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        self._check(runner, 'train', runner.train_dataloader)
        if runner.val_loop is not None:
            self._compare(runner)
            self._check(runner, 'val', runner.val_dataloader)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Name the images that were skipped since the last step, whichever process did."""
        if self._broken is None or get_rank() != 0:
            return
        for entry in self._broken.news():
            runner.logger.warning(
                f'skipped, cannot be read: {describe_entry(entry)}; at most '
                f'{self.max_broken_images} may be (listed in {self._broken.path})'
            )

    def before_val(self, runner: Runner) -> None:
        self._check(runner, 'val', runner.val_dataloader)

    def before_test(self, runner: Runner) -> None:
        self._check(runner, 'test', runner.test_dataloader)

    def _compare(self, runner: Runner) -> None:
        """Hold the validation data against the training data: labels must mean the same in both."""
        train = next(unwrap(runner.train_dataloader.dataset)).dataset
        for _, val, _ in unwrap(runner.val_dataloader.dataset):
            label = f'val data, {describe(val)}'
            fault = split_fault(train, val)
            if fault is not None:
                raise DataError(f'{label}: {fault}')
            for line in split_notes(train, val):
                runner.logger.warning(f'{label}: {line}')
            if has_fewer_folders(train, val):
                self._with_fewer_folders.append(val)

    def _check(self, runner: Runner, mode: str, dataloader: Any) -> None:
        metrics = _metrics(runner, mode)
        for _, dataset, _ in unwrap(dataloader.dataset):
            if any(dataset is seen for seen in self._checked):
                continue
            start = time.perf_counter()
            around = wrappers_of(dataloader.dataset, dataset)
            found, shares = self.look_at(mode, dataset, runner.model, around, metrics)
            label = f'{mode} data, {describe(dataset)}'
            problems = problems_of(mode, dataset, found)
            if problems:
                raise DataError(f'{label}: ' + '; '.join(problems))
            for line in found.warnings():
                runner.logger.warning(f'{label}: {line}')
            if shares:
                runner.logger.info(f'{label}: {shares}')
            runner.logger.info(
                f'{label}: checked in {time.perf_counter() - start:.1f} s; {found.summary()}'
            )
            self._checked.append(dataset)
            if self._broken is None:
                self._broken = BrokenList(Path(runner.log_dir, LIST_NAME), self.max_broken_images)
            if mode == 'train':
                skip_broken_images(dataset, self._broken)
            else:
                name_broken_image(dataset)
        for line in fill_in(metrics):
            runner.logger.warning(f'{mode} data: {line}')

    def look_at(
        self,
        mode: str,
        dataset: Any,
        model: nn.Module,
        wrappers: tuple[Any, ...] = (),
        metrics: Sequence[Any] = (),
    ) -> tuple[Findings, str]:
        """Look at one built data set; all processes must call it together.

        Args:
            mode: ``'train'``, ``'val'`` or ``'test'``.
            dataset: inside of all wrappers.
            model: that is to be trained or evaluated on it.
            wrappers: around the data set, the outermost first.
            metrics: of the evaluation.

        Returns:
            What was found, the same in every process, and a line on the shares of the classes.
        """
        found = self._gather(dataset, model, wrappers, metrics)
        self._settle_images(mode, dataset, found)
        return found, note_classes(found, dataset, model, mode)

    def _gather(
        self, dataset: Any, model: nn.Module, wrappers: tuple[Any, ...], metrics: Sequence[Any]
    ) -> Findings:
        """Return what all processes found together, the same in every process."""
        rank, world_size = get_rank(), get_world_size()
        found = self._inspect(dataset, model, range(rank, len(dataset), world_size), wrappers)
        if rank == 0:
            fewer = any(dataset is known for known in self._with_fewer_folders)
            for text in () if fewer else unfit_heads(dataset, model):
                found.add('heads of another number of classes', -1, text)
            _add_faults_of_file(found, dataset, metrics)
        return Findings.merged(all_gather_object(found))

    def _inspect(
        self,
        dataset: Any,
        model: nn.Module,
        share: Sequence[int],
        wrappers: tuple[Any, ...] = (),
    ) -> Findings:
        found = Findings(samples=len(share))
        if not share or not hasattr(dataset, 'get_data_info'):
            return found
        number = num_classes(dataset, model)
        judged = is_local(dataset) and reads_images(dataset)
        chosen = spaced(share, self.max_images) if judged else ()
        step = image_step(dataset)
        opened = set(spaced(chosen, self.max_headers)) if step is not None else set()
        look_up, samples = set(chosen), []
        labels: list[Any] = []
        with ThreadPoolExecutor(self.num_threads) as pool:
            for start in range(0, len(share), _BLOCK):
                images = []
                for index in share[start : start + _BLOCK]:
                    info = dataset.get_data_info(index)
                    if 'instances' in info:
                        count_boxes(found, index, info)
                    elif 'gt_label' in info and number is not None:
                        labels.append(info['gt_label'])
                        fault = label_fault(info, number)
                        if fault is not None:
                            found.add('labels without a class', index, fault)
                    if is_leftover(str(info.get('img_path'))):
                        found.warn("images are a notebook's copies", index, info['img_path'])
                    if index in look_up and isinstance(info.get('img_path'), str):
                        images.append((index, info['img_path']))
                        if index in opened:
                            samples.append((index, sample_of(info)))
                found.images += len(images)
                _run(pool, found, images, image_fault, aside=True)
            if labels:
                found.labels = count_labels(labels, number)
            look_into(found, step, samples, pool.map, whole=self.decode_images)
            if is_local(dataset):
                self._inspect_label_maps(pool, found, dataset, model, share, wrappers)
        return found

    def _inspect_label_maps(
        self,
        pool: ThreadPoolExecutor,
        found: Findings,
        dataset: Any,
        model: nn.Module,
        share: Sequence[int],
        wrappers: tuple[Any, ...],
    ) -> None:
        first = dataset.get_data_info(share[0])
        reading = map_reading(dataset, wrappers, model)
        if reading is None or not first.get('seg_map_path'):
            return
        if share[0] == 0 and reading.contradicts(first):
            found.add('settings that differ', -1, reading.contradicts(first))
            return
        rule = label_rule(dataset, model)
        inspect_label_maps(pool, found, dataset, spaced(share, self.max_files), reading, rule)

    def _settle_images(self, mode: str, dataset: Any, found: Findings) -> None:
        """Decide which faults of images end the run; an evaluation takes no other image."""
        step = image_step(dataset)
        skips = mode == 'train' and step is not None and can_skip(dataset)
        settle(
            found,
            most_broken=self.max_broken_images if skips else 0,
            ignored=skips and step.ignore_empty,
        )


def problems_of(mode: str, dataset: Any, found: Findings) -> list[str]:
    """Return why a loop cannot run on what was found in a data set, a text each."""
    problems = found.errors()
    if found.samples == 0:
        problems.append(_empty(dataset))
    elif found.boxes == 0:
        problems += _no_boxes(mode, dataset, found)
    return problems


def _check_number(name: str, value: Any, least: int, alternative: str = '') -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f'{name} must be {alternative}at least {least}, got {value}')


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
    *,
    aside: bool = False,
) -> None:
    """Run ``check``, which returns (kind of the fault, offender), on many files."""
    count = found.put_aside if aside else found.add

    def check_some(some: Sequence[tuple[int, Any]]) -> list[tuple[int, tuple[str, str] | None]]:
        return [(index, check(item)) for index, item in some]

    # A task a file would cost more than looking the file up.
    slices = [items[start : start + 64] for start in range(0, len(items), 64)]
    for results in pool.map(check_some, slices):
        for index, fault in results:
            if fault is not None:
                count(fault[0], index, fault[1])


def _metrics(runner: Runner, mode: str) -> Sequence[Any]:
    """Return the metrics of a loop, none for training."""
    loop = getattr(runner, f'{mode}_loop', None) if mode != 'train' else None
    return getattr(getattr(loop, 'evaluator', None), 'metrics', ())


def _add_faults_of_file(found: Findings, dataset: Any, metrics: Sequence[Any]) -> None:
    """Add what a COCO file holds that mmdet drops in silence, or fails on later."""
    path = coco_path(dataset)
    if path is None or not reads_coco(dataset):
        return
    try:
        report = coco_form.report(path, metainfo(dataset).get('classes'))
    except AnnotationFileError:
        # The data set has read its boxes from it already: a format of its own.
        return
    if report is not None:
        use = coco_use.of_built(steps(dataset), metrics)
        found.file_errors += report.errors(use)
        found.file_warnings += report.warnings(use)


def _empty(dataset: Any) -> str:
    suffix = getattr(dataset, 'img_suffix', None) or getattr(dataset, 'extensions', None)
    with_suffix = f' with suffix {suffix}' if suffix else ''
    return f'0 images found in {folder(dataset) or "the data set"}{with_suffix}'


def _no_boxes(mode: str, dataset: Any, found: Findings) -> list[str]:
    path, classes = coco_path(dataset), metainfo(dataset).get('classes')
    report = coco_form.report(path, classes) if path is not None else None
    # The labels of a test set may be secret, so that it has no boxes by design.
    if mode == 'test' and report is not None and not report.has_annotations:
        return []
    names = f'; categories of the file: {list(report.names)}' if report is not None else ''
    return [f'0 boxes in {found.samples} images; expected classes: {list(classes or ())}{names}']
