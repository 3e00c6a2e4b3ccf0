"""Names of classes, as a config states them and as training and validation data compare."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mmwave.errors import printable, printable_path

from .class_folders import quoted
from .pipeline import inherits

_SHARED = ('in the training data', 'in the validation data')


class NamesFault(ValueError):
    """Classes that no data set can be built with; the message begins with the setting."""


def stated_classes(settings: Mapping[str, Any], cls: type | None) -> tuple[str, ...] | None:
    """Return the names of the classes of a data set in a config.

    Args:
        settings: of the data set: ``metainfo`` and, for mmpretrain, ``classes``.
        cls: its class, whose ``METAINFO`` holds where the config states none; None for unknown.

    Returns:
        The names, None where neither states any, where they are in a file elsewhere, and for a
        class that reads its settings in a way of its own.

    Raises:
        NamesFault: where they are no names: a text that is no file, a number, a set, or a name that
            is empty.
    """
    if not inherits(cls, '_load_metainfo'):
        return None
    metainfo = settings.get('metainfo')
    stated = metainfo.get('classes') if isinstance(metainfo, Mapping) else None
    if stated is not None:
        return _names('metainfo.classes', stated)
    stated = settings.get('classes')
    if stated is not None and inherits(cls, '_compat_classes'):
        path = isinstance(stated, str)
        return _names('classes', os.path.expanduser(stated) if path else stated)
    stated = getattr(cls, 'METAINFO', {}).get('classes')
    return tuple(stated) if stated is not None else None


def subset_fault(names: Sequence[str], cls: type | None) -> str | None:
    """Return what is wrong with classes of a data set of mmseg whose class has names of its own."""
    own = getattr(cls, 'METAINFO', {}).get('classes')
    if cls is None or own is None or not inherits(cls, 'get_label_map'):
        return None
    strangers = [name for name in names if name not in own]
    if not strangers:
        return None
    return (
        f'metainfo.classes: {quoted(strangers)} not among the {len(own)} classes of '
        f"{cls.__name__} ({quoted(own)}); for classes of your own use type='BaseSegDataset' with "
        'img_suffix and seg_map_suffix'
    )


def palette_fault(
    settings: Mapping[str, Any], names: Sequence[str], cls: type | None
) -> str | None:
    """Return what is wrong with the palette of a data set of mmseg, which stops at another length.

    A palette for all classes of a class is cut to those that are chosen.
    """
    if not inherits(cls, 'get_label_map', '_update_palette'):
        return None
    own = getattr(cls, 'METAINFO', {})
    metainfo = settings.get('metainfo') or {}
    palette = metainfo.get('palette', own.get('palette')) or ()
    if isinstance(palette, str) or len(palette) in (0, len(names)):
        # One that is a text is read from a file as well.
        return None
    every = list(own.get('classes') or ())
    if every and every != list(names):
        # Cut to the chosen ones: colours are looked up by the labels that the class has for them.
        labels = [every.index(name) for name in names if name in every]
        if len(palette) >= max(len(names), *(label + 1 for label in labels), 0):
            return None
    return f'metainfo.palette has {len(palette)} colours, but there are {len(names)} classes'


def name_notes(metainfo: Mapping[str, Any], cls: type) -> list[str]:
    """Return warnings about the names and colours of a built data set."""
    names, notes = metainfo['classes'], []
    twice = [name for name, count in Counter(names).items() if count > 1]
    # ImageNet itself has two cranes.
    if twice and tuple(names) != tuple(getattr(cls, 'METAINFO', {}).get('classes') or ()):
        notes.append(f'names that more than one class has: {quoted(twice)}')
    palette = metainfo.get('palette') or ()
    if not isinstance(palette, str) and 0 < len(palette) < len(names):
        notes.append(
            f'metainfo.palette has {len(palette)} colours for {len(names)} classes: predictions '
            'cannot be drawn'
        )
    return notes


def shifted(train: Sequence[str], val: Sequence[str]) -> str | None:
    """Name a class that has one label in the training data and another one in the validation data.

    Returns:
        The text, None where every common name has one label.
    """
    label_of = {name: label for label, name in reversed(list(enumerate(train)))}
    labels = ((name, label) for label, name in enumerate(val) if name in label_of)
    for name, label in labels:
        # A name may occur twice: crane, the bird, and crane, the machine, of ImageNet.
        if train[label : label + 1] != val[label : label + 1]:
            return (
                f'class {printable(name)!r} is label {label_of[name]} {_SHARED[0]} and label '
                f'{label} {_SHARED[1]}'
            )
    return None


def differences(train: Sequence[str], val: Sequence[str]) -> str:
    """Say which names only one of two data sets has, '' for none."""
    only_train = [name for name in train if name not in val]
    only_val = [name for name in val if name not in train]
    parts = [
        f'only {where}: {quoted(names)}'
        for where, names in zip(_SHARED, (only_train, only_val), strict=True)
        if names
    ]
    return '; '.join(parts)


def _names(key: str, stated: Any) -> tuple[str, ...] | None:
    if isinstance(stated, str):
        return _names_of_file(key, stated)
    if isinstance(stated, set | frozenset):
        raise NamesFault(f'{key} is a set, which has no order: write a tuple, ({_some(stated)})')
    try:
        names = tuple(stated)
    except TypeError:
        raise NamesFault(
            f"{key} is {printable(stated)}: names are expected, as in ('cat', 'dog')"
        ) from None
    empty = [label for label, name in enumerate(names) if name == '']
    if empty:
        raise NamesFault(f'{key}: the name of class {empty[0]} is empty')
    return names


def _names_of_file(key: str, path: str) -> tuple[str, ...] | None:
    # mmengine reads a text as the path of a file with one name a line.
    if '://' in path:
        return None
    if not os.path.isfile(path):
        raise NamesFault(
            f'{key} is {printable_path(path)!r}, which is no file; a single class is written '
            f"('{printable_path(path)}',), with the comma"
        )
    try:
        with open(path, encoding='utf-8') as lines:
            names = tuple(line.rstrip('\n\r') for line in lines)
    except UnicodeDecodeError as error:
        raise NamesFault(f'{key}: {path!r} is no text: {error.reason}') from None
    if '' in names:
        raise NamesFault(f'{key}: line {names.index("") + 1} of {path!r} is empty, yet a class')
    return names


def _some(names: Any) -> str:
    return ', '.join(repr(printable(name)) for name in sorted(map(str, names))[:3]) + ', …'
