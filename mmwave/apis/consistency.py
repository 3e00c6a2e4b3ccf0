"""Numbers of a config that contradict each other, found before anything is built.

Only what the stock heads, necks and preprocessors do with these numbers is known; others are left
alone. Each contradiction would end the run at its first step or first evaluation.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmwave.engine.data_checks.datasets import bare_type

from .usage import PreflightError

if TYPE_CHECKING:
    from mmengine.config import Config

_BATCH_NORMS = ('BN', 'BN2d', 'MMSyncBN', 'SyncBN', 'SyncBatchNorm')
_SYNCHRONIZED = ('MMSyncBN', 'SyncBN', 'SyncBatchNorm')
# Heads that average the whole map into one pixel, by the setting that asks for it.
_POOLED = {'ASPPHead': None, 'DepthwiseSeparableASPPHead': None}
_POOLED |= {'PSPHead': 'pool_scales', 'UPerHead': 'pool_scales'}
_WORLD_SIZES = ('WORLD_SIZE', 'SLURM_NTASKS', 'OMPI_COMM_WORLD_SIZE')
_ENDLESS = ('InfiniteSampler', 'MultiSourceSampler', 'GroupMultiSourceSampler')
_ONE_MAP_EACH = ('ChannelMapper', 'FPN', 'FPN_CARAFE', 'NASFPN', 'PAFPN')
# Necks with outputs of one width.
_ONE_WIDTH = (*_ONE_MAP_EACH, 'SimpleFeaturePyramid')
_PREPROCESSORS = (
    *('ClsDataPreprocessor', 'DetDataPreprocessor', 'ImgDataPreprocessor'),
    *('SegDataPreProcessor', 'SelfSupDataPreprocessor'),
)
_POOLS = ('GlobalAveragePooling', 'GeneralizedMeanPooling')
# Segmentors' heads with one output a class; others weigh 'no object' too.
_ONE_OUTPUT_A_CLASS = (
    *('ANNHead', 'APCHead', 'ASPPHead', 'CCHead', 'DAHead', 'DDRHead', 'DMHead', 'DNLHead'),
    *('DepthwiseSeparableASPPHead', 'DepthwiseSeparableFCNHead', 'EMAHead', 'EncHead', 'FCNHead'),
    *('FPNHead', 'GCHead', 'ISAHead', 'LRASPPHead', 'LightHamHead', 'NLHead', 'OCRHead', 'PSAHead'),
    *('PSPHead', 'PointHead', 'SETRMLAHead', 'SETRUPHead', 'SegformerHead', 'UPerHead'),
)
_WEIGHTED = ('CrossEntropyLoss', 'DiceLoss', 'FocalLoss', 'TverskyLoss')


def switch_off_worker_options(cfg: Config) -> None:
    """Switch off what torch's loaders accept with worker processes alone, where there are none."""
    from mmengine.logging import print_log

    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if not isinstance(loader, Mapping) or loader.get('num_workers', 0) != 0:
            continue
        for name, off in (('persistent_workers', False), ('prefetch_factor', None), ('timeout', 0)):
            if loader.get(name):
                loader[name] = off
                print_log(
                    f'{split}_dataloader: {name} is switched off, as num_workers is 0',
                    logger='current',
                    level=logging.WARNING,
                )


def check_numbers(
    cfg: Config,
    *,
    splits: Sequence[str] = ('train',),
    num_procs: int | None = None,
    stages: Sequence[Any] | None = None,
) -> None:
    """Check the numbers of a config against each other.

    Args:
        cfg: a config of mmpretrain, mmdet or mmseg form.
        splits: what the run will do, of ``'train'``, ``'val'`` and ``'test'``.
        num_procs: processes of the run; None for those that a launcher's environment states.
        stages: ``stage_info`` of the backbone; None where it is not known.

    Raises:
        PreflightError: at the first contradiction; the message names both settings.
    """
    from mmwave.engine.model_wrapper import unwrapped_settings

    _check_loaders(cfg, splits)
    model = cfg.get('model')
    if not isinstance(model, Mapping):
        return
    model = unwrapped_settings(model)
    _check_topk(cfg, model, splits)
    maps = [stage.channels for stage in stages] if stages is not None else None
    _check_widths(model, maps)
    _check_image_channels(cfg, model, known=stages is not None)
    if 'train' in splits:
        _check_class_weights(model)
        _check_mixed_labels(cfg, model)
        _check_batch_of_one(cfg, model, num_procs)


def _check_loaders(cfg: Config, splits: Sequence[str]) -> None:
    for split in splits:
        for name, least in (('batch_size', 1), ('num_workers', 0)):
            number = _integer(cfg.get(f'{split}_dataloader'), name)
            if number is not None and number < least:
                _fail(f'{split}_dataloader.{name} is {number}, expected at least {least}')
    for split in ('train', 'val') if 'train' in splits else splits:
        _check_sampler(cfg, split)


def _check_sampler(cfg: Config, split: str) -> None:
    """Check that an epoch comes to an end; those of evaluations are such too."""
    loader = cfg.get(f'{split}_dataloader')
    sampler = loader.get('sampler') if isinstance(loader, Mapping) else None
    loop = cfg.get(f'{split}_cfg')
    if bare_type(sampler) not in _ENDLESS or not isinstance(loop, Mapping):
        return
    by_epoch = split != 'train' or bare_type(loop) == 'EpochBasedTrainLoop'
    by_epoch = by_epoch or ('type' not in loop and loop.get('by_epoch') is True)
    if by_epoch:
        other = ', or count iterations (train_cfg.type=IterBasedTrainLoop)'
        _fail(
            f'{split}_dataloader.sampler is {bare_type(sampler)}, over which an epoch never ends: '
            f"set it to a sampler that ends, dict(type='DefaultSampler', "
            f'shuffle={split == "train"}){other if split == "train" else ""}'
        )


def _fail(text: str) -> None:
    raise PreflightError(text)


def _listed(node: Any, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield settings, or each of a list of settings, with their dotted keys."""
    if isinstance(node, Mapping):
        yield key, node
    elif isinstance(node, list | tuple):
        for index, item in enumerate(node):
            yield from _listed(item, f'{key}.{index}')


def _integer(settings: Any, name: str) -> int | None:
    value = settings.get(name) if isinstance(settings, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _check_topk(cfg: Config, model: Mapping[str, Any], splits: Sequence[str]) -> None:
    number = _integer(model.get('head'), 'num_classes')
    if number is None or cfg.get('default_scope') != 'mmpretrain':
        return
    asked = [
        (key, settings)
        for split in dict.fromkeys(('val' if split == 'train' else split) for split in splits)
        for key, settings in _listed(cfg.get(f'{split}_evaluator'), f'{split}_evaluator')
        if bare_type(settings) == 'Accuracy'
    ]
    if model['head'].get('cal_acc') and 'train' in splits:
        asked.append(('model.head', model['head']))
    for key, settings in asked:
        topk = settings.get('topk', 1)
        largest = max(topk) if isinstance(topk, list | tuple) and topk else topk
        if isinstance(largest, int) and largest > number:
            _fail(
                f'{key}.topk={topk}: there are only {number} classes (model.head.num_classes); '
                f'set --cfg-options {key}.topk=(1,)'
            )


def _check_class_weights(model: Mapping[str, Any]) -> None:
    for key, head in _heads(model):
        number = _integer(head, 'num_classes')
        for name in ('loss', 'loss_cls', 'loss_decode'):
            for where, loss in _listed(head.get(name), f'{key}.{name}'):
                weights = loss.get('class_weight')
                if number is None or not isinstance(weights, list | tuple):
                    continue
                expected = _outputs(name, head, loss, number)
                if expected is not None and len(weights) != expected:
                    behind = ' and the background' if expected == number + 1 else ''
                    _fail(
                        f'{where}.class_weight has {len(weights)} numbers, and {key} has {number} '
                        f'classes{behind} (num_classes): expected are {expected}'
                    )


def _outputs(
    name: str, head: Mapping[str, Any], loss: Mapping[str, Any], number: int
) -> int | None:
    """Return the number of outputs that a loss weighs, None where it is not known."""
    sigmoid = loss.get('use_sigmoid', False)
    if name == 'loss_cls':
        known = bare_type(loss) == 'CrossEntropyLoss' and not loss.get('use_mask')
        return (number if sigmoid else number + 1) if known else None
    one_each = bare_type(head) in _ONE_OUTPUT_A_CLASS and head.get('out_channels', number) == number
    if name == 'loss_decode' and not one_each:
        return None
    return number if bare_type(loss) in _WEIGHTED and not sigmoid else None


def _heads(model: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name in ('head', 'bbox_head', 'decode_head', 'auxiliary_head'):
        yield from _listed(model.get(name), f'model.{name}')
    roi_head = model.get('roi_head')
    if isinstance(roi_head, Mapping):
        yield from _listed(roi_head.get('bbox_head'), 'model.roi_head.bbox_head')


def _preprocessor(cfg: Config, model: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """Return key and settings of the preprocessor of images, where it is a known one."""
    own = model.get('data_preprocessor')
    key = 'model.data_preprocessor' if own is not None else 'data_preprocessor'
    settings = own if own is not None else cfg.get('data_preprocessor')
    known = isinstance(settings, Mapping) and bare_type(settings) in ('', *_PREPROCESSORS)
    return (key, settings) if known else None


def _check_mixed_labels(cfg: Config, model: Mapping[str, Any]) -> None:
    """Check the width of one-hot labels, which Mixup, CutMix and ``to_onehot`` ask for."""
    number = _integer(model.get('head'), 'num_classes')
    found = _preprocessor(cfg, model)
    if number is None or found is None or cfg.get('default_scope') != 'mmpretrain':
        return
    key, settings = found
    augments = (model.get('train_cfg') or {}).get('augments')
    one_hot = augments or settings.get('batch_augments') or settings.get('to_onehot')
    stated = _integer(settings, 'num_classes')
    if one_hot and stated is not None and stated != number:
        _fail(
            f'{key}.num_classes is {stated}, and model.head.num_classes is {number}: labels are '
            f'mixed as vectors of as many numbers as there are classes; set --cfg-options '
            f'{key}.num_classes={number}'
        )


def _check_widths(model: Mapping[str, Any], maps: list[int] | None) -> None:
    """Check the channels of neck and heads against the maps that they get."""
    neck = model.get('neck')
    source = 'the backbone'
    if isinstance(neck, Mapping):
        if maps is not None:
            _check_neck(neck, maps)
        width = _integer(neck, 'out_channels')
        if bare_type(neck) in _ONE_WIDTH and width is not None:
            count = _integer(neck, 'num_outs')
            maps = [width] * count if count else None
            _check_dense_heads(model, width)
        elif bare_type(neck) not in _POOLS:
            return
        source = 'the neck' if bare_type(neck) in _ONE_WIDTH else source
    elif neck is not None:
        return
    if maps is None:
        return
    head = model.get('head')
    own = _integer(head, 'in_channels')
    if own is not None and own != maps[-1]:
        _fail(f'model.head.in_channels is {own}, and the last map of {source} has {maps[-1]}')
    for name in ('decode_head', 'auxiliary_head'):
        for key, settings in _listed(model.get(name), f'model.{name}'):
            _check_chosen_maps(key, settings, maps, source)


def _check_neck(neck: Mapping[str, Any], maps: list[int]) -> None:
    stated: Any = None
    name = 'in_channels'
    if bare_type(neck) in _ONE_MAP_EACH:
        stated = neck.get(name)
    elif bare_type(neck) == 'SimpleFeaturePyramid' and name in neck:
        stated = [neck[name]]
    elif bare_type(neck) == 'Feature2Pyramid' and 'embed_dim' in neck:
        name = 'embed_dim'
        stated = [neck[name]] * len(maps)
    if isinstance(stated, list | tuple) and list(stated) != maps:
        _fail(
            f'model.neck.{name} is {neck[name]}, and the outputs of the backbone (arch, '
            f'out_indices) have {maps} channels'
        )


def _check_dense_heads(model: Mapping[str, Any], width: int) -> None:
    for name in ('bbox_head', 'rpn_head'):
        for key, head in _listed(model.get(name), f'model.{name}'):
            own = _integer(head, 'in_channels')
            if own is not None and own != width:
                _fail(f'{key}.in_channels is {own}, and model.neck.out_channels is {width}')


def _check_chosen_maps(key: str, head: Mapping[str, Any], maps: list[int], source: str) -> None:
    """Check a segmentor's head, which chooses maps by ``in_index``."""
    channels, index = head.get('in_channels'), head.get('in_index', -1)
    indices = list(index) if isinstance(index, list | tuple) else [index]
    widths = list(channels) if isinstance(channels, list | tuple) else [channels]
    if not all(isinstance(number, int) for number in (*indices, *widths)):
        return
    if any(not -len(maps) <= number < len(maps) for number in indices):
        _fail(f'{key}.in_index={index}: there are {len(maps)} maps of {source}, counted from 0')
    if len(widths) != len(indices):
        return  # the head says it itself, or adds the maps up
    expected = [maps[number] for number in indices]
    if widths != expected:
        one = expected[0] if not isinstance(channels, list | tuple) else expected
        _fail(f'{key}.in_channels is {channels}, and the maps {index} of {source} have {one}')


def _check_image_channels(cfg: Config, model: Mapping[str, Any], *, known: bool) -> None:
    """Check the backbone's input against what the loader and the normalization leave."""
    backbone, found = model.get('backbone'), _preprocessor(cfg, model)
    own = _integer(backbone, 'in_channels')
    if own is None and known:
        own = 3
    if own is None or found is None:
        return
    key, settings = found
    mean = settings.get('mean')
    wide = len(mean) if isinstance(mean, list | tuple) else 0
    # Numbers for several channels spread a grey image over them.
    if wide > 1:
        if wide != own:
            _fail(
                f'model.backbone.in_channels is {own}, and {key}.mean and std are those of {wide} '
                'channels'
            )
        return
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        dataset = loader.get('dataset') if isinstance(loader, Mapping) else None
        steps = dataset.get('pipeline') if isinstance(dataset, Mapping) else None
        first = steps[0] if isinstance(steps, list | tuple) and steps else None
        if bare_type(first) != 'LoadImageFromFile' or own == 1:
            continue
        if first.get('color_type') == 'grayscale':
            _fail(
                f'model.backbone.in_channels is {own}, and {split}_dataloader.dataset.pipeline '
                "loads images of one channel (color_type='grayscale')"
            )


def _check_batch_of_one(cfg: Config, model: Mapping[str, Any], num_procs: int | None) -> None:
    """Check for batch norms over one value, which torch refuses in training."""
    if _integer(cfg.get('train_dataloader'), 'batch_size') != 1:
        return
    stated = (os.environ[name] for name in _WORLD_SIZES if name in os.environ)
    processes = num_procs or int(next(stated, 1))
    for name in ('decode_head', 'auxiliary_head'):
        for key, head in _listed(model.get(name), f'model.{name}'):
            if bare_type(head) not in _POOLED:
                continue
            setting = _POOLED[bare_type(head)]
            norm = bare_type(head.get('norm_cfg'))
            pools = setting is None or 1 in head.get(setting, (1, 2, 3, 6))
            if not pools or norm not in _BATCH_NORMS or (norm in _SYNCHRONIZED and processes > 1):
                continue
            fewer = f', {key}.{setting}=(2,3,6)' if setting else ''
            _fail(
                f'train_dataloader.batch_size is 1, and {key} has batch norms ({norm}) on a map '
                f'of one pixel, which need two values at least; set '
                f'train_dataloader.batch_size=2{fewer} or {key}.norm_cfg.type=GN with '
                f'{key}.norm_cfg.num_groups=32'
            )
