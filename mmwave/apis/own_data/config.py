"""``init_config``: a config for somebody's own data over a shipped one."""

import os.path as osp
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmwave.apis.config_names import find_config
from mmwave.apis.usage import PreflightError, UsageError
from mmwave.errors import printable_path

from .data import OwnData, below, common_root
from .inputs import Inputs, read_class_names, read_inputs

_FEW_FOR_NORMS = 8


@dataclass(frozen=True, kw_only=True)
class InitReport:
    """What :func:`init_config` wrote and found.

    Attributes:
        path: of the config.
        title: what the model is.
        data: what was read.
        plan: the training's length and learning rate, see :class:`.rates.Plan`.
        sizes: range and median of the sizes of the images, of training and validation.
        warnings: what looks wrong, a line each.
    """

    path: str
    title: str
    data: OwnData
    plan: Any
    sizes: tuple[str, str]
    warnings: tuple[str, ...]


def init_config(
    base: str,
    out: str = 'my.py',
    *,
    coco: str | None = None,
    masks: str | None = None,
    folders: str | None = None,
    images: str | None = None,
    classes: str | None = None,
    weights: str | None = None,
    batch: int | None = None,
    epochs: int | None = None,
    force: bool = False,
) -> InitReport:
    """Write a config for data of your own, with every place set that depends on them.

    Exactly one of ``coco``, ``masks`` and ``folders`` is given. What is written was loaded and
    checked as a training would; nothing is written otherwise.

    Args:
        base: a shipped config by its name, or the path of a config, for the same task.
        out: the file to write, ``.py``.
        coco: COCO files with boxes (and masks) for training and validation, ``'A.json,B.json'``.
        masks: folders of label maps for both, ``'A,B'``.
        folders: folders for both, in which each class has a folder of images, ``'A,B'``.
        images: folders of images for both, with ``coco`` and ``masks``.
        classes: a file with names of classes, one a line, with or without a colour ``r g b``.
        weights: to start from, ``'none'`` for random ones, None for those that the base names.
        batch: images a step on one GPU; None for the base's.
        epochs: length of the training; None for the base's.
        force: replace ``out`` where it exists.

    Returns:
        What was found, with the path of the file.

    Raises:
        UsageError: where data, base and numbers do not fit each other, ``out`` exists, or a run
            with the config would be refused.
    """
    base = find_config(base)
    target = _target(out, base, force=force)
    inputs = read_inputs({'coco': coco, 'masks': masks, 'folders': folders}, images)
    given = read_class_names(classes) if classes is not None else None
    from mmwave.engine.console import console

    with console(False):
        return _init(target, base, inputs, given, weights, batch, epochs)


def _init(
    target: Path,
    name: str,
    inputs: Inputs,
    given: Any,
    weights: str | None,
    batch: int | None,
    epochs: int | None,
) -> InitReport:
    from .base import class_counts, read_base, starting_weights
    from .rates import plan
    from .remarks import remarks, size_line

    base = read_base(name, inputs.form)
    counts = class_counts(base.cfg.model)
    start, missing = starting_weights(base, weights)
    data = _read(inputs, base, given)
    training = plan(base.cfg, data.train.images, batch=batch, epochs=epochs)
    text = _text(base, data, inputs.form, counts, start, training)
    _check(text, target)
    from mmwave.checkpoint import whole_file

    with whole_file(target) as file:
        file.write(text.encode())
    backbone = _backbone(base.cfg.model)
    least = 1 if backbone is None else backbone.size_constraint.min_size
    found = remarks(data, training, base.cfg, least)
    if backbone is not None:
        found += _of_norms(backbone, training.batch, start, base.cfg.model)
    return InitReport(
        path=str(target),
        title=base.title,
        data=data,
        plan=training,
        sizes=(size_line(data.train), size_line(data.val)),
        warnings=(*data.warnings, *found, *missing),
    )


def _target(out: str, base: str, *, force: bool) -> Path:
    target = Path(out).expanduser()
    shown = printable_path(out)
    if target.suffix != '.py':
        raise UsageError(f'-o {shown}: a config is written to a .py file')
    if target.is_dir():
        raise UsageError(f'-o {shown} is a folder: name a file in it')
    if osp.realpath(target) == osp.realpath(base):
        raise UsageError(f'-o {shown} is the base itself: name another file')
    if target.exists() and not force:
        raise UsageError(f'-o {shown} exists: --force replaces it, or name another file')
    if not target.parent.is_dir():
        raise UsageError(f'-o {shown}: no folder {printable_path(target.parent)}')
    return target


def _read(inputs: Inputs, base: Any, given: Any) -> OwnData:
    if inputs.form == 'coco':
        from .coco import read_coco

        return read_coco(inputs, base, given)
    if inputs.form == 'masks':
        from .masks import read_masks

        return read_masks(inputs, given)
    from .folders import read_folders

    return read_folders(inputs, given)


def _text(
    base: Any,
    data: OwnData,
    form: str,
    counts: dict[str, Any],
    start: dict[str, Any],
    training: Any,
) -> str:
    """Return the text of the config."""
    from .text import statement

    title = (
        f'{base.title} for {data.named}: {data.train.images} images to train on, '
        f'{data.val.images} to validate.'
    )
    groups = [
        [f'"""{title}"""'],
        [statement('_base_', base.path)],
        [statement(*line) for line in _names(data, form)],
        [statement(*line) for line in _model(base, counts, start)],
        [statement(*line) for line in _data(base, data, form, training)],
        [statement(*line) for line in _training(training)],
    ]
    return '\n\n'.join('\n'.join(group) for group in groups if group) + '\n'


def _names(data: OwnData, form: str) -> list[tuple[Any, ...]]:
    from .text import Code, colours

    lines: list[tuple[Any, ...]] = [('classes', data.classes)]
    if form == 'folders':
        return [*lines, ('metainfo', dict(classes=Code('classes')))]
    palette = list(data.palette) if data.palette else colours(len(data.classes))
    lines.append(('palette', palette))
    return [*lines, ('metainfo', dict(classes=Code('classes'), palette=Code('palette')))]


def _model(base: Any, counts: dict[str, Any], start: dict[str, Any]) -> list[tuple[Any, ...]]:
    from .text import Code

    backbone = {'backbone': start['backbone']} if 'backbone' in start else {}
    lines: list[tuple[Any, ...]] = [('model', {**backbone, **counts})]
    if 'num_classes' in (base.cfg.get('data_preprocessor') or {}):
        lines.append(('data_preprocessor', dict(num_classes=Code('len(classes)'))))
    if 'load_from' in start:
        path = start['load_from']
        lines.append(('load_from', path, path and 'Without what depends on the number of classes.'))
    return lines


def _data(base: Any, data: OwnData, form: str, training: Any) -> list[tuple[Any, ...]]:
    from .text import Code

    paths = [
        value
        for split in (data.train, data.val)
        for value in split.settings.values()
        if isinstance(value, str) and osp.isabs(value)
    ]
    root = common_root([osp.dirname(p) if osp.isfile(p) else p for p in paths])

    def short(path: str) -> str:
        return below(root, path)

    lines: list[tuple[Any, ...]] = [('data_root', root)]
    for name, split in (('train', data.train), ('val', data.val)):
        loader: dict[str, Any] = dict(batch_size=training.batch) if name == 'train' else {}
        if name == 'train' and _repeats(base.cfg):
            # An epoch of the base is three views of a third of the images.
            loader['sampler'] = dict(type='DefaultSampler')
        loader['dataset'] = _dataset(base, form, split, name, short)
        lines.append((f'{name}_dataloader', loader))
    lines.append(('test_dataloader', Code('val_dataloader')))
    evaluator = _evaluator(base, form, data, short)
    if evaluator:
        lines += [('val_evaluator', evaluator), ('test_evaluator', Code('val_evaluator'))]
    return lines


def _dataset(
    base: Any, form: str, split: Any, name: str, short: Callable[[str], str]
) -> dict[str, Any]:
    from .coco import coco_settings
    from .folders import folder_settings
    from .masks import mask_settings
    from .text import Code

    shared: dict[str, Any] = dict(data_root=Code('data_root'), metainfo=Code('metainfo'))
    own = base.cfg[f'{name}_dataloader'].dataset
    if form == 'coco':
        return {**_typed(own, 'CocoDataset'), **shared, **coco_settings(split, short)}
    if form == 'masks':
        return {**_typed(own, 'BaseSegDataset'), **shared, **mask_settings(split, short)}
    variable = 'train_pipeline' if name == 'train' else 'test_pipeline'
    place = f'{name}_dataloader.dataset.pipeline'
    pipeline = variable if base.cfg.get(variable) == own.pipeline else place
    return dict(
        _delete_=True,
        type='CustomDataset',
        **shared,
        **folder_settings(split, short),
        pipeline=Code(f'_base_.{pipeline}'),
    )


def _typed(own: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {} if own.get('type') == kind else dict(type=kind)


def _repeats(cfg: Any) -> bool:
    sampler = cfg.train_dataloader.get('sampler') or {}
    return sampler.get('type') == 'RepeatAugSampler' and set(sampler) <= {'type', 'shuffle'}


def _evaluator(base: Any, form: str, data: OwnData, short: Callable[[str], str]) -> dict[str, Any]:
    from .text import Code

    own = base.cfg.get('val_evaluator') or {}
    if not isinstance(own, Mapping):
        raise UsageError(f'{base.name} has several val_evaluators: give a config with one')
    if form == 'coco':
        name = short(data.val.settings['ann_file'])
        return {**_typed(own, 'CocoMetric'), 'ann_file': Code(f'data_root + {name!r}')}
    topk = own.get('topk')
    if form != 'folders' or topk is None:
        return {}
    asked = topk if isinstance(topk, list | tuple) else (topk,)
    # With as many guesses as classes every one is right.
    kept = tuple(k for k in asked if k < len(data.classes)) or (1,)
    return {} if kept == tuple(asked) else dict(topk=kept)


def _training(training: Any) -> list[tuple[Any, ...]]:
    comments = {
        'optim_wrapper': 'The rate of the base x batch here / batch there: the linear rule.',
        'param_scheduler': f'The schedule of the base for {training.total} steps.',
        'custom_hooks': f'The average of weights looks back over a part of {training.total} steps.',
    }
    return [(key, value, comments.get(key, '')) for key, value in training.settings.items()]


def _check(text: str, target: Path) -> None:
    """Raise where a run with this config would be refused."""
    from mmwave.apis.preflight import preflight
    from mmwave.apis.run import load_config

    with tempfile.TemporaryDirectory() as folder:
        path = osp.join(folder, target.name)
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)
        cfg = load_config(path)
        try:
            preflight(cfg, splits=('train', 'test'))
        except PreflightError as error:
            raise UsageError(f'these data do not go with this base: {error}') from error


def _backbone(model: Mapping[str, Any]) -> Any:
    """Return a backbone of ours, built without memory, None for one of another library."""
    settings = {k: v for k, v in (model.get('backbone') or {}).items() if k != 'init_cfg'}
    if not str(settings.get('type')).startswith('mmwave.'):
        return None
    import torch

    from mmwave.registry import MODELS

    with torch.device('meta'):
        return MODELS.build(settings)


def _of_norms(backbone: Any, batch: int, start: Mapping[str, Any], model: Any) -> Iterator[str]:
    """Warn of batch norms that few images a step would spoil."""
    from torch.nn.modules.batchnorm import _BatchNorm

    pretrained = {**model.backbone, **start.get('backbone', {})}.get('init_cfg')
    few = pretrained and batch < _FEW_FOR_NORMS and not backbone.norm_eval
    if few and any(isinstance(module, _BatchNorm) for module in backbone.modules()):
        yield (
            f'the backbone has batch norms, for whose statistics {batch} images a step are few: '
            '--cfg-options model.backbone.norm_eval=True keeps those of the pretraining'
        )
