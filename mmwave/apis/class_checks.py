"""Classes that a config states, held against the files of its data sets, COCO files above all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmwave.engine.data_checks import coco_form, coco_use
from mmwave.engine.data_checks.class_names import NamesFault, stated_classes
from mmwave.engine.data_checks.class_settings import class_fault
from mmwave.engine.data_checks.coco_file import AnnotationFileError
from mmwave.engine.data_checks.datasets import Place, bare_type

from .places import ann_file_of, dataset_class, image_folder, is_local
from .usage import PreflightError

# torch and mmengine are imported inside functions: mmwave.apis imports this module at once.
if TYPE_CHECKING:
    from mmengine.config import Config


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
    if not coco_form.is_read_here(path):
        return
    classes = stated_classes(dataset, dataset_class(place))
    try:
        report = coco_form.report(path, classes)
    except AnnotationFileError as error:
        raise PreflightError(f'{place.key}: {error}') from error
    if report is None:
        raise PreflightError(f'{place.key}: {path!r} has no COCO categories (id and name each)')
    if classes is not None:
        _compare_names(place.key, path, classes, report.names)
    problems = report.errors(coco_use.in_config(cfg, place, path))
    if problems:
        raise PreflightError(f'{place.key}: {path!r} cannot be used: {"; ".join(problems)}')
    if classes is not None:
        _check_images_kept(place, path, report)


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


def _check_images_kept(place: Place, path: str, report: coco_form.CocoReport) -> None:
    dataset = place.dataset
    chosen = {} if dataset.get('test_mode') else dict(dataset.get('filter_cfg') or {})
    wanted = {name: chosen[name] for name in ('filter_empty_gt', 'min_size') if name in chosen}
    if report.images_kept(**wanted) == 0:
        images = report.images_kept()
        raise PreflightError(
            f'{place.key}: 0 of {images} images of {path!r} are left under filter_cfg={chosen}'
        )


def _brief(names: Sequence[str], most: int = 20) -> str:
    rest = f' … and {len(names) - most} more' if len(names) > most else ''
    return ', '.join(map(repr, names[:most])) + rest
