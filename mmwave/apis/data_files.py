"""Folders and files that a config names and that are not there, or hold nothing."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mmwave.engine.data_checks.datasets import Place, bare_type, loads_labels

from .places import (
    ann_file_of,
    dataset_class,
    default_of,
    image_folder,
    is_local,
    prefixes,
)
from .usage import PreflightError

# torch and mmengine are imported inside functions: mmwave.apis imports this module at once.
if TYPE_CHECKING:
    from mmengine.config import Config


def check_roots(places: Sequence[Place]) -> None:
    def missing(place: Place) -> str | None:
        root = place.dataset.get('data_root')
        local = is_local(root, place.dataset.get('backend_args'))
        return root if local and root and not osp.isdir(root) else None

    bad = [(root, place.key) for place in places if (root := missing(place)) is not None]
    if bad:
        root = bad[0][0]
        options = ' '.join(f'{key}.data_root=DIR' for other, key in bad if other == root)
        raise PreflightError(
            f'{bad[0][1]}: data_root {root!r} {_why_no_folder(root)}; say where the data is with '
            f'--cfg-options {options}'
        )


def check_folders(place: Place) -> None:
    for setting, folder in prefixes(place.dataset).items():
        if setting == 'data_prefix.seg_map_path' and not loads_labels(place.dataset):
            continue
        if not is_local(folder, place.dataset.get('backend_args')) or not folder:
            continue
        if not osp.isdir(folder):
            raise PreflightError(
                f'{place.key}: folder {folder!r} ({setting}) {_why_no_folder(folder)}; set '
                f'--cfg-options {place.key}.{setting}=SUBFOLDER of data_root '
                f'{place.dataset.get("data_root")!r}, or {place.key}.data_root=DIR'
            )


def _why_no_folder(path: str) -> str:
    return 'is a file, not a folder' if osp.exists(path) else 'does not exist'


def check_ann_file(place: Place) -> None:
    path = ann_file_of(place.dataset)
    if path is None or not is_local(path, place.dataset.get('backend_args')):
        return
    fix = f'set --cfg-options {place.key}.ann_file=FILE (or {place.key}.data_root=DIR)'
    if not osp.exists(path):
        raise PreflightError(f'{place.key}: annotation file {path!r} does not exist; {fix}')
    if osp.isdir(path):
        # mmseg scans the image folder when its ann_file is a folder.
        if path.endswith('.json'):
            raise PreflightError(f'{place.key}: ann_file {path!r} is a folder, not a file; {fix}')
    elif path.endswith('.txt'):
        with open(path, encoding='utf-8') as lines:
            if not any(line.strip() for line in lines):
                raise PreflightError(f'{place.key}: 0 images listed in {path!r}; {fix}')


def check_evaluators(cfg: Config, name: str, places: Sequence[Place]) -> None:
    evaluators = cfg.get(f'{name}_evaluator') or ()
    listed = isinstance(evaluators, Sequence)
    used = {
        osp.realpath(path)
        for place in places
        if place.key.startswith(f'{name}_') and (path := ann_file_of(place.dataset)) is not None
    }
    for index, evaluator in enumerate(evaluators if listed else (evaluators,)):
        path = evaluator.get('ann_file') if isinstance(evaluator, Mapping) else None
        if not path or not is_local(path, evaluator.get('backend_args')):
            continue
        key = f'{name}_evaluator.{index}' if listed else f'{name}_evaluator'
        fix = f'set --cfg-options {key}.ann_file=FILE to the file of {name}_dataloader'
        if not osp.isfile(path):
            raise PreflightError(f'{key}: annotation file {path!r} does not exist; {fix}')
        # The metric would fail on unknown image ids, but only after an epoch.
        if len(used) == 1 and osp.realpath(path) not in used:
            raise PreflightError(
                f'{key}: ann_file {path!r} is not the file that {name}_dataloader reads '
                f'({used.pop()!r}); {fix}'
            )


def check_not_empty(place: Place) -> None:
    dataset = place.dataset
    path = ann_file_of(dataset)
    if path is not None and not osp.isdir(path):
        return
    folder = image_folder(dataset)
    if folder is None or not is_local(folder, dataset.get('backend_args')):
        return
    cls = dataset_class(place)
    suffixes, setting = dataset.get('img_suffix') or default_of(cls, 'img_suffix'), 'img_suffix'
    in_subfolders = False
    if suffixes is None:
        implied = getattr(cls, 'IMG_EXTENSIONS', None) or default_of(cls, 'extensions')
        suffixes, setting = dataset.get('extensions') or implied, 'extensions'
        # mmpretrain: every subfolder is a class, files beside them do not count.
        # Its test split is the exception, a flat folder without labels.
        unlabelled = bare_type(dataset) == 'ImageNet' and dataset.get('split') == 'test'
        in_subfolders = dataset.get('with_label', True) and not unlabelled
    if suffixes is None:
        return
    suffixes = (suffixes,) if isinstance(suffixes, str) else tuple(suffixes)
    stranger = _first_stranger(folder, suffixes, in_subfolders, any_case=setting == 'extensions')
    if stranger is not None:
        held = f'it holds {stranger!r}' if stranger else 'it holds no file'
        where = 'in subfolders of' if in_subfolders else 'in'
        raise PreflightError(
            f'{place.key}: 0 images found {where} {folder!r} with suffix {" ".join(suffixes)} '
            f'({held}); set --cfg-options {place.key}.data_prefix or {place.key}.{setting}'
        )


def _first_stranger(
    folder: str, suffixes: tuple[str, ...], in_subfolders: bool, *, any_case: bool
) -> str | None:
    """Return None when an image is found, else the path of another file, or '' without any."""
    stranger = ''
    for parent, _, names in os.walk(folder, followlinks=True):
        for name in names:
            path = osp.relpath(osp.join(parent, name), folder)
            fits = (name.lower() if any_case else name).endswith(suffixes)
            if fits and not name.startswith('.') and not (in_subfolders and parent == folder):
                return None
            stranger = stranger or path
    return stranger
