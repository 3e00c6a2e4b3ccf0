"""What a run does with a COCO file: which of its faults matter."""

import os.path as osp
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .datasets import Place, bare_type


@dataclass(frozen=True, kw_only=True)
class Use:
    """What a run does with a COCO file.

    Attributes:
        masks: the pipeline reads masks.
        metrics: what ``CocoMetric`` evaluates with this file, ``'bbox'`` or ``'segm'`` among them.
    """

    masks: bool = False
    metrics: frozenset[str] = frozenset()


def of_built(steps: Sequence[Any], metrics: Sequence[Any]) -> Use:
    """Return the use of a file by a built pipeline and the metrics that hold the file.

    Args:
        steps: all transforms of the pipeline.
        metrics: of the evaluator; those of another class than ``CocoMetric`` do not count.
    """
    return Use(
        masks=any(
            type(step).__name__ == 'LoadAnnotations' and getattr(step, 'with_mask', False)
            for step in steps
        ),
        metrics=frozenset(
            name
            for metric in metrics
            if type(metric).__name__ == 'CocoMetric'
            and metric._coco_api is not None
            and not metric.format_only
            for name in metric.metrics
        ),
    )


def in_config(cfg: Mapping[str, Any], place: Place, path: str) -> Use:
    """Return the use of a file by the pipeline of a data set in a config, and by its metrics.

    Args:
        cfg: the whole config.
        place: the data set, with the key of its loader.
        path: of the file.
    """
    evaluators = cfg.get(f'{place.key.partition("_")[0]}_evaluator') or ()
    kinds: list[str] = []
    for metric in evaluators if isinstance(evaluators, Sequence) else (evaluators,):
        if not isinstance(metric, Mapping) or bare_type(metric) != 'CocoMetric':
            continue
        own = metric.get('ann_file')
        if own and osp.realpath(own) == osp.realpath(path) and not metric.get('format_only'):
            names = metric.get('metric', 'bbox')
            kinds += [names] if isinstance(names, str) else names
    masks = _loads_masks(place.dataset.get('pipeline') or ())
    return Use(masks=masks, metrics=frozenset(kinds))


def _loads_masks(part: Any) -> bool:
    """Return whether a step of a pipeline, or one inside of it, reads masks."""
    if isinstance(part, Mapping):
        own = bare_type(part) == 'LoadAnnotations' and bool(part.get('with_mask'))
        return own or any(map(_loads_masks, part.values()))
    return isinstance(part, list | tuple) and any(map(_loads_masks, part))
