"""Names and colours of the classes that a model predicts."""

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config
from torch import nn

from mmwave.apis.places import dataset_class
from mmwave.engine.data_checks.class_names import NamesFault, stated_classes
from mmwave.engine.data_checks.datasets import unwrap
from mmwave.engine.data_checks.heads import num_classes

Palette = tuple[tuple[int, int, int], ...]
_TURN = 0.618033988749895  # of the circle of hues: neighbours and later classes differ


def classes_and_palette(
    cfg: Config, checkpoint: Any, model: nn.Module
) -> tuple[tuple[str, ...], Palette, list[str]]:
    """Return the names of the classes, a colour for each, and warnings.

    The names are those that the checkpoint was trained with, else the config's; ``class 0``, ...
    where neither knows as many as the model has.

    Args:
        cfg: whose test data set states classes and colours.
        checkpoint: as it was read.
        model: with a head.
    """
    number = num_classes(None, model)
    trained = _noted(checkpoint)
    stated = _stated(cfg)
    notes = []
    known = [
        (names, palette)
        for names, palette in (trained, stated)
        if names and number in (None, len(names))
    ]
    if not known:
        counts = ' and '.join(
            f'{len(names)} in {where}'
            for (names, _), where in ((trained, 'the checkpoint'), (stated, 'the config'))
            if names
        )
        if number is None:
            number = 0
        notes.append(
            f'the model has {number} classes, whose names are unknown'
            + (f' ({counts})' if counts else '')
        )
        return tuple(f'class {i}' for i in range(number)), colours(number), notes
    names, palette = known[0]
    if len(known) == 2 and known[0][0] != known[1][0]:
        notes.append(
            'the checkpoint was trained with other names of classes than the config states: its '
            'own are used'
        )
    else:
        palette = next((p for _, p in reversed(known) if len(p) >= len(names)), palette)
    if len(palette) < len(names):
        palette = colours(len(names))
    return names, palette[: len(names)], notes


def colours(number: int) -> Palette:
    """Return colours of different hues, the same at every call."""
    found = []
    for index in range(number):
        hue, saturation = index * _TURN % 1, (0.85, 0.55)[index // 7 % 2]
        red, green, blue = colorsys.hsv_to_rgb(hue, saturation, (0.95, 0.7)[index // 14 % 2])
        found.append((round(red * 255), round(green * 255), round(blue * 255)))
    return tuple(found)


def _noted(checkpoint: Any) -> tuple[tuple[str, ...], Palette]:
    meta = checkpoint.get('meta') if isinstance(checkpoint, Mapping) else None
    if not isinstance(meta, Mapping):
        return (), ()
    noted = meta.get('dataset_meta')
    if not isinstance(noted, Mapping):
        noted = dict(classes=meta.get('CLASSES'), palette=meta.get('PALETTE'))
    noted = {str(key).lower(): value for key, value in noted.items()}
    return _names(noted.get('classes')), _palette(noted.get('palette'))


def _stated(cfg: Config) -> tuple[tuple[str, ...], Palette]:
    loader = cfg.get('test_dataloader') or {}
    place = next(iter(unwrap(loader['dataset'], 'test_dataloader', cfg.default_scope)))
    cls = dataset_class(place)
    try:
        names = stated_classes(place.dataset, cls)
    except NamesFault:  # of a file that is with the data
        names = None
    metainfo = place.dataset.get('metainfo') or {}
    own = getattr(cls, 'METAINFO', {})
    palette = metainfo.get('palette') if isinstance(metainfo, Mapping) else None
    if palette is None and tuple(own.get('classes') or ()) == names:
        palette = own.get('palette')
    return _names(names), _palette(palette)


def _names(given: Any) -> tuple[str, ...]:
    if not isinstance(given, Sequence) or isinstance(given, str):
        return ()
    return tuple(str(name) for name in given)


def _palette(given: Any) -> Palette:
    """Return colours as a data set or a checkpoint holds them, none where they are no colours."""
    try:
        found = tuple(tuple(int(part) for part in colour) for colour in given)
    except (TypeError, ValueError):  # None, or the name of one of mmdet's
        return ()
    if not all(len(colour) == 3 and all(0 <= c <= 255 for c in colour) for colour in found):
        return ()
    return found  # type: ignore[return-value]
