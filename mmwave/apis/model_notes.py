"""What a checkpoint and its config say of a model: task, preprocessing, metrics."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmwave.engine.hooks.provenance import VALIDATED
from mmwave.engine.model_wrapper import unwrapped_settings
from mmwave.engine.training_state import is_count, is_number

_SIZES = ('scale', 'size', 'edge', 'crop_size', 'scale_factor', 'keep_ratio', 'size_divisor')
_NO_METRICS = ('data_time', 'time', 'step')
_MAX_LOG = 64 << 20  # bytes
_TIMESTAMP = re.compile(r'(?:(?P<stem>.*)_)?(?P<time>\d{8}_\d{6})')
_BEST = re.compile(r'best_(?P<metric>.+)_(?:epoch|iter)_\d+\.pth')


def task_of(settings: Mapping[str, Any]) -> tuple[str, str]:
    """Return a config's task in words, and Hugging Face's name of it; empty where unknown."""
    scope, model = settings.get('default_scope'), _model(settings)
    if scope == 'mmpretrain':
        return 'image classification', 'image-classification'
    if scope == 'mmseg':
        return 'semantic segmentation', 'image-segmentation'
    if scope != 'mmdet':
        return '', ''
    names = {*map(str, model), *map(str, _mapping(model.get('roi_head')))}
    if any('panoptic' in name for name in names):
        return 'panoptic segmentation', 'image-segmentation'
    if any('mask' in name for name in names):
        return 'instance segmentation', 'image-segmentation'
    return 'object detection', 'object-detection'


def preprocessing_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return how images are prepared: mean, std, to_rgb, pad_size_divisor, test_sizes.

    Mean and std are in the units of pixels; ``test_sizes`` are the steps of the test pipeline that
    set a size, in order. What the config does not state is left out.
    """
    given = _mapping(_model(settings).get('data_preprocessor') or settings.get('data_preprocessor'))
    found = {k: given[k] for k in ('mean', 'std', 'pad_size_divisor') if given.get(k) is not None}
    for key in ('to_rgb', 'bgr_to_rgb'):
        if key in given:
            found['to_rgb'] = given[key]
    pipeline = _dataset(settings, 'test').get('pipeline')
    steps = pipeline if isinstance(pipeline, Sequence) else ()
    sizes = [
        {'type': step.get('type'), **{k: step[k] for k in _SIZES if k in step}}
        for step in map(_mapping, steps)
        if any(key in step for key in _SIZES if key != 'keep_ratio')
    ]
    return found | ({'test_sizes': sizes} if sizes else {})


def measured_on(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data that a config validates on, and by which metrics."""
    dataset = _dataset(settings, 'val')
    keys = ('type', 'data_root', 'ann_file', 'split', 'data_prefix')
    found = {key: dataset[key] for key in keys if dataset.get(key)}
    evaluators = settings.get('val_evaluator')
    several = evaluators if isinstance(evaluators, list | tuple) else [evaluators]
    kinds = [kind for e in several if isinstance(kind := _mapping(e).get('type'), str)]
    return found | ({'evaluator': ', '.join(kinds)} if kinds else {})


def metrics_of(
    content: Mapping[str, Any], source: Path, settings: Mapping[str, Any]
) -> dict[str, float]:
    """Return the validation metrics of a checkpoint's weights by name, empty where unknown.

    They are those that the checkpoint notes, where the validation was at its iteration; else those
    of the log of the run that wrote it, at its epoch or iteration, where that log is beside it;
    else the score of a best checkpoint. Metrics of other weights of the same run do not count.

    Args:
        content: of the checkpoint.
        source: its path.
        settings: of its config.
    """
    meta = _mapping(content.get('meta'))
    noted = _mapping(meta.get(VALIDATED))
    if is_count(meta.get('iter')) and noted.get('iter') == meta['iter']:
        return _numbers(noted.get('metrics'))
    return _logged(meta, source, settings) or _best(content, source)


def run_name(meta: Mapping[str, Any]) -> str:
    """Return the name of the run that wrote a checkpoint, that of its config if none was set."""
    found = _TIMESTAMP.fullmatch(str(meta.get('experiment_name', '')))
    return (found['stem'] or '') if found else ''


def _logged(meta: Mapping[str, Any], source: Path, settings: Mapping[str, Any]) -> dict[str, float]:
    found = _TIMESTAMP.fullmatch(str(meta.get('experiment_name', '')))
    if not found:
        return {}
    logger = _mapping(_mapping(settings.get('default_hooks')).get('logger'))
    step = meta.get('epoch' if logger.get('log_metric_by_epoch', True) else 'iter')
    path = source.parent / found['time'] / 'vis_data/scalars.json'
    try:
        if not is_count(step) or not step or path.stat().st_size > _MAX_LOG:
            return {}
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    for line in reversed(lines):
        try:
            values = _mapping(json.loads(line))
        except (RecursionError, ValueError):  # a line that was cut
            continue
        if values.get('step') == step and 'lr' not in values:  # of a training step otherwise
            metrics = {k: v for k, v in values.items() if k not in _NO_METRICS}
            if metrics:
                return _numbers(metrics)
    return {}


def _best(content: Mapping[str, Any], source: Path) -> dict[str, float]:
    info = _mapping(_mapping(content.get('message_hub')).get('runtime_info'))
    found = _BEST.fullmatch(source.name)
    best = info.get('best_ckpt')
    if not found or not isinstance(best, str) or best.rpartition('/')[2] != source.name:
        return {}
    return _numbers({found['metric']: info.get('best_score')})


def _numbers(metrics: Any) -> dict[str, float]:
    return {
        str(name): float(value) for name, value in _mapping(metrics).items() if is_number(value)
    }


def _model(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    return unwrapped_settings(_mapping(settings.get('model')))


def _dataset(settings: Mapping[str, Any], split: str) -> Mapping[str, Any]:
    dataset = _mapping(_mapping(settings.get(f'{split}_dataloader')).get('dataset'))
    while isinstance(dataset.get('dataset'), Mapping):
        dataset = dataset['dataset']
    return dataset


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
