"""What the heads of a model expect of the data."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from .class_folders import quoted, stray_note
from .datasets import metainfo

_HEADS = (
    'decode_head',
    'auxiliary_head',
    'head',
    'bbox_head',
    'roi_head.bbox_head',
    'roi_head.mask_head',
)


def num_classes(dataset: Any, model: nn.Module) -> int | None:
    """Return the number of classes of a data set, or of the model's heads where it states none."""
    classes = metainfo(dataset).get('classes')
    if classes is not None:
        return len(classes)
    return next((n for _, h in _heads(model) if (n := getattr(h, 'num_classes', None))), None)


def ignore_index(dataset: Any, model: nn.Module) -> int:
    """Return the label that the loss leaves out: the head decides, not the data set."""
    for name, head in _heads(model):
        if name.startswith('decode_head') and getattr(head, 'ignore_index', None) is not None:
            return head.ignore_index
    return getattr(dataset, 'ignore_index', 255)


def num_labels(dataset: Any, model: nn.Module) -> int | None:
    """Return the number of labels that a label map may hold: as many as there are classes.

    A head of one output for one class learns two labels all the same: not the class, and the class.
    """
    number = num_classes(dataset, model)
    decode_heads = [head for name, head in _heads(model) if name.startswith('decode_head')]
    single = any(getattr(head, 'out_channels', None) == 1 for head in decode_heads)
    return max(number, 2) if single and number is not None else number


def unfit_heads(dataset: Any, model: nn.Module) -> list[str]:
    """Describe each head that has another number of outputs than the data set has classes."""
    classes = metainfo(dataset).get('classes')
    if classes is None:
        return []
    outputs = ((name, getattr(head, 'num_classes', None)) for name, head in _heads(model))
    folders = tuple(getattr(dataset, 'folder_to_idx', None) or ())
    note = stray_note(folders)
    why = f' (folders {quoted(folders)}{"; " + note if note else ""})' if folders else ''
    return [
        f'model.{name}.num_classes is {number}, the data has {len(classes)} classes{why}'
        for name, number in outputs
        if number is not None and number != len(classes)
    ]


def _heads(model: Any) -> Iterator[tuple[str, Any]]:
    # DistributedDataParallel and test-time augmentation store the model in ``module``.
    while isinstance(getattr(model, 'module', None), nn.Module):
        model = model.module
    for path in _HEADS:
        head: Any = model
        for name in path.split('.'):
            head = getattr(head, name, None)
        if isinstance(head, nn.ModuleList):
            yield from ((f'{path}.{index}', inner) for index, inner in enumerate(head))
        elif head is not None:
            yield path, head
