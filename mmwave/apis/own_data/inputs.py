"""Paths and names of classes as they are given, checked before anything heavy is imported."""

import os.path as osp
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from mmwave.apis.usage import UsageError
from mmwave.engine.data_checks.class_folders import quoted
from mmwave.errors import printable_path

from .data import Colour

FORMS = {'coco': 'TRAIN.json,VAL.json', 'masks': 'TRAIN_MASKS,VAL_MASKS', 'folders': 'TRAIN,VAL'}
"""Form of the data -> what is given for it."""


class Inputs(NamedTuple):
    """The data as given.

    Attributes:
        form: one of :data:`FORMS`.
        annotations: COCO files, folders of masks or folders of classes, for training and
            validation.
        images: folders of images for both, empty for folders of classes.
    """

    form: str
    annotations: tuple[str, str]
    images: tuple[str, ...] = ()


class ClassNames(NamedTuple):
    """Names from a file, and the colours beside them; None where it has none."""

    names: tuple[str, ...]
    palette: tuple[Colour, ...] | None


def read_inputs(given: Mapping[str, str | None], images: str | None) -> Inputs:
    """Check what was given and return it with absolute paths.

    Args:
        given: for each of :data:`FORMS` two paths with a comma between them, or None.
        images: two folders in the same way.

    Raises:
        UsageError: where not one form is given, a path is missing, or is not there.
    """
    forms = [form for form in FORMS if given.get(form) is not None]
    if len(forms) != 1:
        options = ', '.join(f'--{form} {value}' for form, value in FORMS.items())
        said = ' and '.join(f'--{form}' for form in forms) or 'none'
        raise UsageError(f'give your data by one of {options}: got {said}')
    (form,) = forms
    pair = _pair(f'--{form}', given[form] or '', FORMS[form])
    for path in pair:
        _check(f'--{form}', path, is_file=form == 'coco')
    if form == 'folders':
        if images is not None:
            raise UsageError('--images does not go with --folders, which hold the images')
        return Inputs(form, pair)
    if images is None:
        raise UsageError(f'--{form} needs --images TRAIN_DIR,VAL_DIR, the folders of the images')
    folders = _pair('--images', images, 'TRAIN_DIR,VAL_DIR')
    for path in folders:
        _check('--images', path, is_file=False)
    return Inputs(form, pair, folders)


def read_class_names(path: str) -> ClassNames:
    """Read names of classes, one a line, with or without a colour behind it.

    Args:
        path: of a text file with lines ``name`` or ``name r g b``.

    Raises:
        UsageError: where it is no such file, a name is empty or stands twice, or some lines have a
            colour and others do not.
    """
    shown = printable_path(path)
    try:
        with open(osp.expanduser(path), encoding='utf-8-sig') as file:
            lines = file.read().rstrip().split('\n')
    except OSError as error:
        raise UsageError(f'--classes {shown} cannot be read: {error.strerror}') from error
    except UnicodeDecodeError as error:
        raise UsageError(f'--classes {shown} is no text: {error.reason}') from error
    names, colours = [], []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            raise UsageError(f'--classes {shown}: line {number} is empty, but each is a class')
        colour = words[-3:] if len(words) > 3 and all(w.isdecimal() for w in words[-3:]) else []
        if any(int(value) > 255 for value in colour):
            raise UsageError(
                f'--classes {shown}: line {number} has the colour {" ".join(colour)}, expected '
                'three numbers from 0 to 255'
            )
        names.append(' '.join(words[: len(words) - len(colour)]))
        if colour:
            colours.append((int(colour[0]), int(colour[1]), int(colour[2])))
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(f'--classes {shown} has names twice: {quoted(twice)}')
    if colours and len(colours) < len(names):
        raise UsageError(
            f'--classes {shown}: {len(colours)} of {len(names)} lines have a colour (name r g b): '
            'give all one, or none'
        )
    return ClassNames(tuple(names), tuple(colours) or None)


def _pair(option: str, text: str, expected: str) -> tuple[str, str]:
    parts = [part.strip() for part in text.split(',')]
    if len(parts) != 2 or not all(parts):
        missing = ', the second is missing' if len(parts) == 1 or not parts[-1] else ''
        raise UsageError(
            f'{option} {printable_path(text)}: expected two paths with a comma between them, '
            f'{expected}{missing}'
        )
    first, second = (osp.abspath(osp.expanduser(part)) for part in parts)
    return first, second


def _check(option: str, path: str, *, is_file: bool) -> None:
    there = osp.isfile(path) if is_file else osp.isdir(path)
    if there:
        return
    expected, other = ('file', 'folder') if is_file else ('folder', 'file')
    fault = f'is a {other}, expected a {expected}' if osp.exists(path) else f'no such {expected}'
    raise UsageError(f'{option} {printable_path(path)}: {fault}')
