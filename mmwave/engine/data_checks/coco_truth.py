"""What the truth of a COCO metric lacks, and training does without, is filled in before it counts.

pycocotools stops at an annotation without ``iscrowd``, after the first epoch, and takes an
annotation whose id is 0 for none, so that its match counts as a mistake.
"""

from typing import Any

_NUMBERS = (int, float)


def complete_truth(evaluator: Any) -> list[str]:
    """Fill in what the COCO metrics of an evaluator need, in memory: their files stay.

    Annotations get ``iscrowd`` 0, an ``area`` (width times height, in square pixels) and, in place
    of an id that is 0 or no number, a free one. Metrics of other kinds are left alone.

    Returns:
        A line for each kind of change, for a warning.
    """
    lines = []
    for metric in getattr(evaluator, 'metrics', None) or ():
        truth = getattr(metric, '_coco_api', None)
        annotations = getattr(truth, 'anns', None)
        if isinstance(annotations, dict) and annotations:
            lines += _complete(annotations)
    return list(dict.fromkeys(lines))


def _complete(annotations: dict[Any, dict[str, Any]]) -> list[str]:
    unmarked = [a for a in annotations.values() if a.get('iscrowd') is None]
    for annotation in unmarked:
        annotation['iscrowd'] = 0
    flat = [a for a in annotations.values() if type(a.get('area')) not in _NUMBERS]
    flat = [a for a in flat if len(a.get('bbox') or ()) == 4]
    for annotation in flat:
        annotation['area'] = annotation['bbox'][2] * annotation['bbox'][3]
    numbers = [number for number in annotations if type(number) in _NUMBERS]
    odd = [n for n in annotations if n == 0 or type(n) not in _NUMBERS]
    free = max((int(number) for number in numbers), default=0)
    for old in odd:
        free += 1
        # The lists by image hold the same dicts.
        annotations[free] = annotations.pop(old)
        annotations[free]['id'] = free
    lines = []
    if unmarked:
        lines.append(f'iscrowd is missing in {len(unmarked)} annotations and was taken for 0')
    if flat:
        lines.append(f'area is missing in {len(flat)} annotations and was taken from their boxes')
    if odd:
        lines.append(
            f'{len(odd)} annotations have the id 0, which pycocotools takes for "no match", or no '
            f'number for an id ({", ".join(map(repr, odd[:5]))}): they were given other ids in '
            'memory'
        )
    return lines
