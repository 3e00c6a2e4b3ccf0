"""Harmless values for what a file lacks that ``CocoMetric`` needs, filled in before it evaluates.

Only the annotations that the metric holds in memory change, never the file.
"""

from collections.abc import Iterable
from typing import Any

from .coco_annotations import is_box, is_match_id, is_number, is_polygon


def fill_in(metrics: Iterable[Any]) -> list[str]:
    """Fill in what mmdet's ``CocoMetric`` lacks; a second call finds nothing left.

    Missing ``iscrowd`` is 0 and missing ``area`` that of the box. Ids that pycocotools takes for
    no match (0, or no number), or that another annotation has too, become free ones. Polygons too
    short for it are left out beside good ones.

    Args:
        metrics: of an evaluator; those of other classes are left alone.

    Returns:
        A text for each metric that lacked something.
    """
    lines = []
    for metric in metrics:
        api = getattr(metric, '_coco_api', None)
        if type(metric).__name__ == 'CocoMetric' and api is not None and not metric.format_only:
            counts = _fill_in(api)
            said = [f'{count} {what}' for what, count in counts.items() if count]
            if said:
                lines.append(f'filled in for CocoMetric, in memory: {", ".join(said)}')
    return lines


def _fill_in(api: Any) -> dict[str, int]:
    counts = dict.fromkeys(
        (
            "annotations without 'iscrowd' (0)",
            "texts as 'iscrowd' (their number)",
            "annotations without 'area' (that of the box)",
            'polygons too short (left out)',
            'annotation ids that stand twice or that pycocotools takes for no match (others given)',
        ),
        0,
    )
    no_crowd, text_crowd, no_area, short, no_match = counts
    free = 1 + max((int(key) for key in api.anns if is_match_id(key)), default=0)
    for annotation in api.dataset.get('annotations', ()):
        crowd = annotation.get('iscrowd')
        if crowd is None:
            annotation['iscrowd'] = 0
            counts[no_crowd] += 1
        elif isinstance(crowd, str) and crowd.strip().isdecimal():
            annotation['iscrowd'] = int(crowd)
            counts[text_crowd] += 1
        if not is_number(annotation.get('area')) and is_box(annotation.get('bbox')):
            annotation['area'] = annotation['bbox'][2] * annotation['bbox'][3]
            counts[no_area] += 1
        mask = annotation.get('segmentation')
        if isinstance(mask, list) and any(map(is_polygon, mask)):
            good = [p for p in mask if not isinstance(p, list) or len(p) > 4]
            counts[short] += len(mask) - len(good)
            annotation['segmentation'] = good
        # The lists by image hold the same objects, the table by id one of each id.
        own = api.anns.get(annotation['id']) is annotation
        if not own or not is_match_id(annotation['id']):
            if own:
                del api.anns[annotation['id']]
            annotation['id'], free = free, free + 1
            api.anns[annotation['id']] = annotation
            counts[no_match] += 1
    return counts
