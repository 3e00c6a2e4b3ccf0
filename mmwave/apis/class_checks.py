"""Classes that a config states, held against the files of its data sets, COCO files above all."""

from __future__ import annotations

import os
import os.path as osp
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mmwave.engine.data_checks.class_names import NamesFault, stated_classes
from mmwave.engine.data_checks.class_settings import class_fault
from mmwave.engine.data_checks.coco_file import AnnotationFileError, read_report
from mmwave.engine.data_checks.coco_form import CocoReport
from mmwave.engine.data_checks.datasets import Place, loads_masks
from mmwave.engine.data_checks.tally import tally_lines

from .places import ann_file_of, bare_type, dataset_class, image_folder, is_local
from .usage import PreflightError

# torch and mmengine are imported inside functions: mmwave.apis imports this module at once.
if TYPE_CHECKING:
    from mmengine.config import Config

# Larger COCO files are read by one process of a machine: each would need gigabytes for them.
_READ_BY_ALL = 64 * 2**20


def check_classes(place: Place) -> None:
    dataset = place.dataset
    files = {'folder': image_folder(dataset), 'ann_file': ann_file_of(dataset)}
    here = {k: p for k, p in files.items() if is_local(p, dataset.get('backend_args'))}
    try:
        fault = class_fault(dataset, dataset_class(place), **here)
    except NamesFault as error:
        fault = str(error)
    if fault is not None:
        raise PreflightError(f'{place.key}: {fault}')


def check_coco(place: Place, cfg: Config) -> None:
    dataset = place.dataset
    path = ann_file_of(dataset)
    if path is None or not path.endswith('.json'):
        return
    if not is_local(path, dataset.get('backend_args')):
        return
    # Other classes have other formats behind the same suffix, one JSON a line among them.
    if bare_type(dataset) != 'CocoDataset':
        return
    if osp.getsize(path) > _READ_BY_ALL and _local_rank() > 0:
        return
    try:
        report = read_report(path)
    except AnnotationFileError as error:
        raise PreflightError(f'{place.key}: {error}') from error
    if report is None:
        raise PreflightError(f'{place.key}: {path!r} has no COCO categories (id and name each)')
    metric_masks = _compares_masks(cfg, place.key.partition('_')[0])
    errors = report.errors(masks=loads_masks(dataset), metric_masks=metric_masks)
    if errors:
        raise PreflightError(f'{place.key}: {path!r}: {"; ".join(tally_lines(errors))}')
    classes = stated_classes(dataset, dataset_class(place))
    if classes is not None:
        _compare_names(place.key, path, classes, report.names)
        _check_images_kept(place, path, classes, report)


def _local_rank() -> int:
    names = ('LOCAL_RANK', 'SLURM_LOCALID')
    return max(int(os.environ.get(name) or 0) for name in names)


def _compares_masks(cfg: Config, loader: str) -> bool:
    """Return whether a metric of ``loader`` compares masks with those of a COCO file."""
    evaluators = cfg.get(f'{loader}_evaluator') or ()
    return any(
        isinstance(evaluator, Mapping)
        and bool(evaluator.get('ann_file'))
        and 'segm' in (evaluator.get('metric') or ())
        for evaluator in (evaluators if isinstance(evaluators, Sequence) else (evaluators,))
    )


def _compare_names(key: str, path: str, classes: tuple[str, ...], names: tuple[str, ...]) -> None:
    """Compare names: mmdet numbers labels in the file's order, and drops unknown ones silently."""
    missing = [name for name in classes if name not in names]
    both = f'expected classes: {_brief(classes)}; categories of the file: {_brief(names)}'
    fix = f'set {key}.metainfo.classes to the names of the file'
    if missing:
        raise PreflightError(
            f'{key}: {len(missing)} of {len(classes)} classes are not in {path!r}: '
            f'{_brief(missing)}; {both}; {fix}'
        )
    doubled = sorted(name for name, count in Counter(names).items() if count > 1)
    if doubled and set(doubled) & set(classes):
        raise PreflightError(f'{key}: {path!r} has these categories twice: {_brief(doubled)}')
    in_file_order = tuple(name for name in names if name in classes)
    if in_file_order != classes:
        raise PreflightError(
            f'{key}: classes are in another order than in {path!r}, and labels would get the wrong '
            f'names; {both}; set {key}.metainfo.classes to {in_file_order}'
        )


def _check_images_kept(
    place: Place, path: str, classes: tuple[str, ...], report: CocoReport
) -> None:
    dataset = place.dataset
    chosen = {} if dataset.get('test_mode') else dict(dataset.get('filter_cfg') or {})
    wanted = {name: chosen[name] for name in ('filter_empty_gt', 'min_size') if name in chosen}
    if report.images_kept(classes, **wanted) == 0:
        images = report.images_kept(classes)
        raise PreflightError(
            f'{place.key}: 0 of {images} images of {path!r} are left under filter_cfg={chosen}'
        )


def _brief(names: Sequence[str], most: int = 20) -> str:
    rest = f' … and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(map(repr, names[:most])) + rest
