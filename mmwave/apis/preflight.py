"""Mistakes in a config that can be seen before anything heavy is built.

``preflight`` reads only the config, the file system and the annotation files' headers, and builds
the backbone without memory, so that a wrong folder, class name or setting ends the run in seconds
and in one line. What needs the built data sets (missing single images, bad label maps) is the work
of ``DataCheckHook``.
"""

from __future__ import annotations

import inspect
import os
import os.path as osp
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmwave.engine.data_checks.class_names import NamesFault, stated_classes
from mmwave.engine.data_checks.class_settings import class_fault
from mmwave.engine.data_checks.coco_file import AnnotationFileError, read_report
from mmwave.engine.data_checks.coco_form import CocoReport
from mmwave.engine.data_checks.datasets import (
    Place,
    is_local_backend,
    loads_labels,
    loads_masks,
    unwrap,
)
from mmwave.engine.data_checks.tally import tally_lines

from .arguments import check_arguments
from .consistency import check_numbers
from .usage import PreflightError, UsageError

# torch and mmengine are imported inside functions: mmwave.apis imports this module at once.
if TYPE_CHECKING:
    from mmengine.config import Config

LOADERS = {'train': ('train', 'val'), 'val': ('val',), 'test': ('test',)}
# Larger COCO files are read by one process of a machine: each would need gigabytes for them.
_READ_BY_ALL = 64 * 2**20
# mmpretrain's classes that fetch their files themselves when the folder is not there.
_FETCHING = ('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST')


def preflight(
    cfg: Config, *, splits: Sequence[str] = ('train',), num_procs: int | None = None
) -> None:
    """Check a config against the machine and the files before anything is built.

    Args:
        cfg: a config of mmpretrain, mmdet or mmseg form.
        splits: what the run will do: ``'train'`` checks the train and the validation data,
            ``'val'`` and ``'test'`` their own.
        num_procs: processes to start on this machine; None when somebody else starts them.

    Raises:
        PreflightError: where a folder, an annotation file, class names, the settings of a backbone
            of ours or options of ``compile`` do not fit, or there are more processes than GPUs.
        UsageError: where a split has another name.
    """
    unknown = sorted(set(splits) - set(LOADERS))
    if unknown:
        raise UsageError(f'splits: unknown {unknown}, accepted are {list(LOADERS)}')
    if num_procs is not None:
        _check_num_procs(num_procs)
    stages = _check_backbone(cfg)
    _check_compile(cfg)
    check_numbers(cfg, splits=splits, num_procs=num_procs, stages=stages)
    loaders = list(dict.fromkeys(name for split in splits for name in LOADERS[split]))
    places = [place for name in loaders for place in _places(cfg, name, needed=name in splits)]
    _check_roots(places)
    for place in places:
        _check_folders(place)
        _check_ann_file(place)
    for name in loaders:
        _check_evaluators(cfg, name, places)
    # Last, because the defaults for what the config leaves out are the library's, whose import
    # takes seconds.
    for place in places:
        _check_not_empty(place)
        _check_classes(place)
        _check_coco(place, cfg)
    check_arguments(cfg, loaders)


def _check_num_procs(num_procs: int) -> None:
    if num_procs < 1:
        raise PreflightError(f'{num_procs} processes asked for: at least 1 is needed')
    import torch

    num_gpus = torch.cuda.device_count()
    if 0 < num_gpus < num_procs:
        raise PreflightError(
            f'{num_procs} processes asked for, but this machine shows {num_gpus} GPU(s): each '
            f'process needs its own; start at most {num_gpus}, or hide the GPUs with '
            'CUDA_VISIBLE_DEVICES= to run on the CPU'
        )


def _check_backbone(cfg: Config) -> Sequence[Any] | None:
    """Build a backbone of ours where it costs nothing: wrong settings name the accepted ones.

    Returns:
        Its ``stage_info``, None for a backbone of another library.
    """
    from mmwave.engine.model_wrapper import unwrapped_settings

    settings = unwrapped_settings(cfg.get('model', {})).get('backbone')
    if not isinstance(settings, Mapping) or not str(settings.get('type')).startswith('mmwave.'):
        return None
    import torch

    from mmwave.registry import MODELS

    try:
        with torch.device('meta'):
            return MODELS.build({k: v for k, v in settings.items() if k != 'init_cfg'}).stage_info
    except (KeyError, TypeError, ValueError) as error:
        raise PreflightError(f'model.backbone: {error.args[0]}') from error


def _check_compile(cfg: Config) -> None:
    """Have torch check the options of ``compile``, which it does before it compiles anything."""
    settings = cfg.get('compile')
    if settings is None or isinstance(settings, bool):
        return
    if not isinstance(settings, Mapping):
        raise PreflightError(
            f'compile={settings!r} must be True, False or a dict of options of torch.compile'
        )
    import torch

    try:
        torch.compile(torch.nn.Identity(), **settings)
    except (AssertionError, AttributeError, RuntimeError, TypeError) as error:
        reason = textwrap.shorten(str(error), 300, placeholder=' ...')
        raise PreflightError(f'compile: {reason}') from error


def _places(cfg: Config, name: str, *, needed: bool) -> Iterator[Place]:
    loader = cfg.get(f'{name}_dataloader')
    if loader is None:
        if needed:
            raise PreflightError(f'the config has no {name}_dataloader')
        return
    if isinstance(loader, Mapping):
        dataset = loader.get('dataset')
        for place in unwrap(dataset, f'{name}_dataloader.dataset', cfg.get('default_scope')):
            settings = place.dataset
            if isinstance(settings, Mapping) and _bare_type(settings) not in _FETCHING:
                yield place


def _bare_type(dataset: Mapping[str, Any]) -> str:
    kind = dataset.get('type')
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', '')


def _dataset_class(place: Place) -> type | None:
    """Return the class of a data set, None for one not registered (building it says so)."""
    kind = place.dataset.get('type')
    if not isinstance(kind, str):
        return kind
    from mmengine.registry import DATASETS

    scoped = kind if '.' in kind or place.scope is None else f'{place.scope}.{kind}'
    return DATASETS.get(scoped)


def _default(cls: type | None, name: str) -> Any:
    """Return the default of a constructor argument, looked up along the class hierarchy."""
    for base in cls.__mro__ if cls is not None else ():
        if '__init__' in vars(base):
            parameter = inspect.signature(base.__init__).parameters.get(name)
            if parameter is not None and parameter.default is not parameter.empty:
                return parameter.default
    return None


def _is_local(path: Any, backend_args: Mapping[str, Any] | None = None) -> bool:
    return isinstance(path, str) and '://' not in path and is_local_backend(backend_args)


def _join(dataset: Mapping[str, Any], path: str) -> str:
    root = dataset.get('data_root')
    path = osp.expanduser(path)
    # mmengine's join_path would start the client of a remote root.
    return osp.join(root, path) if root else path


def _prefixes(dataset: Mapping[str, Any]) -> dict[str, str]:
    """Return the folders of a data set, by the config key that sets each."""
    prefix = dataset.get('data_prefix')
    if isinstance(prefix, Mapping):
        return {f'data_prefix.{key}': _join(dataset, value) for key, value in prefix.items()}
    # mmpretrain: a string, and ImageNet's split names the folder when there is no prefix.
    if prefix:
        return {'data_prefix': _join(dataset, prefix)}
    if dataset.get('split') and _bare_type(dataset).startswith('ImageNet'):
        return {'split': _join(dataset, dataset['split'])}
    return {'data_root': dataset['data_root']} if dataset.get('data_root') else {}


def _image_folder(dataset: Mapping[str, Any]) -> str | None:
    folders = _prefixes(dataset)
    return folders.get('data_prefix.img_path') or next(iter(folders.values()), None)


def _ann_file(dataset: Mapping[str, Any]) -> str | None:
    path = dataset.get('ann_file')
    if path and isinstance(path, str):
        return _join(dataset, path)
    if _bare_type(dataset).startswith('ImageNet') and dataset.get('split'):
        implied = _join(dataset, f'meta/{dataset["split"]}.txt')
        return implied if osp.exists(implied) else None
    return None


def _check_roots(places: Sequence[Place]) -> None:
    def missing(place: Place) -> str | None:
        root = place.dataset.get('data_root')
        local = _is_local(root, place.dataset.get('backend_args'))
        return root if local and root and not osp.isdir(root) else None

    bad = [(root, place.key) for place in places if (root := missing(place)) is not None]
    if bad:
        root = bad[0][0]
        options = ' '.join(f'{key}.data_root=DIR' for other, key in bad if other == root)
        raise PreflightError(
            f'{bad[0][1]}: data_root {root!r} {_why_no_folder(root)}; say where the data is with '
            f'--cfg-options {options}'
        )


def _check_folders(place: Place) -> None:
    for setting, folder in _prefixes(place.dataset).items():
        if setting == 'data_prefix.seg_map_path' and not loads_labels(place.dataset):
            continue
        if not _is_local(folder, place.dataset.get('backend_args')) or not folder:
            continue
        if not osp.isdir(folder):
            raise PreflightError(
                f'{place.key}: folder {folder!r} ({setting}) {_why_no_folder(folder)}; set '
                f'--cfg-options {place.key}.{setting}=SUBFOLDER of data_root '
                f'{place.dataset.get("data_root")!r}, or {place.key}.data_root=DIR'
            )


def _why_no_folder(path: str) -> str:
    return 'is a file, not a folder' if osp.exists(path) else 'does not exist'


def _check_ann_file(place: Place) -> None:
    path = _ann_file(place.dataset)
    if path is None or not _is_local(path, place.dataset.get('backend_args')):
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


def _check_evaluators(cfg: Config, name: str, places: Sequence[Place]) -> None:
    evaluators = cfg.get(f'{name}_evaluator') or ()
    listed = isinstance(evaluators, Sequence)
    used = {
        osp.realpath(path)
        for place in places
        if place.key.startswith(f'{name}_') and (path := _ann_file(place.dataset)) is not None
    }
    for index, evaluator in enumerate(evaluators if listed else (evaluators,)):
        path = evaluator.get('ann_file') if isinstance(evaluator, Mapping) else None
        if not path or not _is_local(path, evaluator.get('backend_args')):
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


def _check_coco(place: Place, cfg: Config) -> None:
    dataset = place.dataset
    path = _ann_file(dataset)
    if path is None or not path.endswith('.json'):
        return
    if not _is_local(path, dataset.get('backend_args')):
        return
    # Other classes have other formats behind the same suffix, one JSON a line among them.
    if _bare_type(dataset) != 'CocoDataset':
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
    classes = stated_classes(dataset, _dataset_class(place))
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


def _check_classes(place: Place) -> None:
    dataset = place.dataset
    files = {'folder': _image_folder(dataset), 'ann_file': _ann_file(dataset)}
    here = {k: p for k, p in files.items() if _is_local(p, dataset.get('backend_args'))}
    try:
        fault = class_fault(dataset, _dataset_class(place), **here)
    except NamesFault as error:
        fault = str(error)
    if fault is not None:
        raise PreflightError(f'{place.key}: {fault}')


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


def _check_not_empty(place: Place) -> None:
    dataset = place.dataset
    path = _ann_file(dataset)
    if path is not None and not osp.isdir(path):
        return
    folder = _image_folder(dataset)
    if folder is None or not _is_local(folder, dataset.get('backend_args')):
        return
    cls = _dataset_class(place)
    suffixes, setting = dataset.get('img_suffix') or _default(cls, 'img_suffix'), 'img_suffix'
    in_subfolders = False
    if suffixes is None:
        implied = getattr(cls, 'IMG_EXTENSIONS', None) or _default(cls, 'extensions')
        suffixes, setting = dataset.get('extensions') or implied, 'extensions'
        # mmpretrain: every subfolder is a class, files beside them do not count.
        # Its test split is the exception, a flat folder without labels.
        unlabelled = _bare_type(dataset) == 'ImageNet' and dataset.get('split') == 'test'
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
