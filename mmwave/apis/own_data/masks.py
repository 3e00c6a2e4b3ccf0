"""Label maps beside images: which belong together, and what their values mean."""

import os
import os.path as osp
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmwave.apis.usage import UsageError
from mmwave.engine.data_checks.class_folders import quoted
from mmwave.engine.data_checks.label_maps import LabelRule, read_label_map
from mmwave.engine.data_checks.label_reading import MapReading
from mmwave.errors import printable_path

from .data import OwnData, Split
from .image_sizes import sizes_of, spread
from .inputs import ClassNames, Inputs

IGNORED = 255
_IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
_MASKS = ('.png', '.bmp', '.tif', '.tiff', '.gif')
_MARKS = '._-'
_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Images and their label maps.

    Attributes:
        stems: what the names of a pair have in common.
        img_suffix: what follows in the image's name.
        seg_map_suffix: what follows in the label map's.
        alone: label maps without an image.
        skipped: images of another suffix.
    """

    stems: list[str]
    img_suffix: str
    seg_map_suffix: str
    alone: list[str]
    skipped: list[str]


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What the values of label maps mean.

    Attributes:
        num_classes: number of classes.
        reduce_zero_label: 0 is ignored, and label 1 is the first class.
        named: names of the classes, empty where none were given.
    """

    num_classes: int
    reduce_zero_label: bool
    named: tuple[str, ...] = ()


def read_masks(inputs: Inputs, given: ClassNames | None) -> OwnData:
    """Read the label maps of training and validation.

    Args:
        inputs: as checked.
        given: names of the classes in the order of their labels; None for ``class_0`` and so on.

    Raises:
        UsageError: where images have no label map, a label map cannot be used, or its values do
            not fit the names.
    """
    warnings: list[str] = []
    found = []
    for images, masks, name in zip(
        inputs.images, inputs.annotations, ('train', 'val'), strict=True
    ):
        pairs = pair(images, masks)
        if pairs.alone:
            warnings.append(
                f'{name}: {len(pairs.alone)} masks have no image and are not used: '
                f'{quoted(pairs.alone)}'
            )
        if pairs.skipped:
            warnings.append(
                f'{name}: {len(pairs.skipped)} images are not read, as their names do not end in '
                f'{pairs.img_suffix}: {quoted(pairs.skipped)}'
            )
        pixels, read = _count(images, masks, pairs)
        if read < len(pairs.stems):
            warnings.append(f'{name}: {read} of {len(pairs.stems)} masks were read')
        found.append((name, images, masks, pairs, pixels))
    meaning = meaning_of(*(pixels for *_, pixels in found), given=given, where=inputs.annotations)
    shift = int(meaning.reduce_zero_label)
    train, val = (
        Split(
            images=len(pairs.stems),
            counts=pixels[shift : shift + meaning.num_classes].tolist(),
            sizes=sizes_of(
                [osp.join(images, stem + pairs.img_suffix) for stem in pairs.stems], name, warnings
            ),
            settings=dict(
                images=images,
                masks=masks,
                img_suffix=pairs.img_suffix,
                seg_map_suffix=pairs.seg_map_suffix,
                reduce_zero_label=meaning.reduce_zero_label,
            ),
        )
        for name, images, masks, pairs, pixels in found
    )
    names = meaning.named or tuple(f'class_{index}' for index in range(meaning.num_classes))
    palette = given.palette if given is not None else None
    return OwnData(
        unit='pixels', classes=names, train=train, val=val, palette=palette, warnings=warnings
    )


def pair(images: str, masks: str) -> Pairs:
    """Find which images and label maps belong together, by the common parts of their names.

    Args:
        images: folder of images, which may have folders in it.
        masks: folder of label maps.

    Raises:
        UsageError: where there are none, or an image has no label map.
    """
    pictures, maps = _files(images, _IMAGES), _files(masks, _MASKS)
    for folder, names, kinds in ((images, pictures, _IMAGES), (masks, maps, _MASKS)):
        if not names:
            raise UsageError(f'{printable_path(folder)} has no files with {" ".join(kinds)}')
    img_suffix, map_suffix = _suffixes(pictures, maps, same_folder=images == masks)
    stems = {name.removesuffix(img_suffix) for name in pictures if name.endswith(img_suffix)}
    held = {name.removesuffix(map_suffix) for name in maps if name.endswith(map_suffix)}
    skipped = [name for name in pictures if not name.endswith(img_suffix)]
    if images == masks:  # the label maps lie among the images
        skipped = [name for name in skipped if name not in maps]
    if not stems & held:
        raise UsageError(
            f'no image of {printable_path(images)} ({quoted(pictures[:1])}) has the name of a mask '
            f'of {printable_path(masks)} ({quoted(maps[:1])}): a pair differs in its ending alone'
        )
    lone = sorted(stems - held)
    if lone:
        raise UsageError(
            f'{len(lone)} of {len(stems)} images of {printable_path(images)} have no mask '
            f'NAME{map_suffix} in {printable_path(masks)}: {quoted(lone)}; move them elsewhere'
        )
    return Pairs(
        stems=sorted(stems),
        img_suffix=img_suffix,
        seg_map_suffix=map_suffix,
        alone=sorted(held - stems),
        skipped=skipped,
    )


def _files(root: str, suffixes: tuple[str, ...]) -> list[str]:
    names = [
        osp.relpath(osp.join(folder, name), root)
        for folder, _, found in os.walk(root, followlinks=True)
        for name in found
        if name.lower().endswith(suffixes) and not name.startswith('.')
    ]
    return sorted(names)


def _suffixes(
    pictures: Sequence[str], maps: Sequence[str], *, same_folder: bool
) -> tuple[str, str]:
    """Return the endings by which most names pair up, the shortest ones of equally many."""
    best: tuple[int, int, str, str] = (-1, 0, '', '')
    for img_suffix in _endings(pictures):
        stems = {n.removesuffix(img_suffix) for n in pictures if n.endswith(img_suffix)}
        for map_suffix in _endings(maps):
            if same_folder and img_suffix == map_suffix:
                continue
            held = {n.removesuffix(map_suffix) for n in maps if n.endswith(map_suffix)}
            key = (len(stems & held), -len(img_suffix + map_suffix), img_suffix, map_suffix)
            best = max(best, key)
    return best[2], best[3]


def _endings(names: Sequence[str]) -> list[str]:
    """Return the extensions of these names, and what more the names of one end in alike."""
    endings = []
    for extension in Counter(osp.splitext(name)[1] for name in names):
        same = [osp.basename(name) for name in names if name.endswith(extension)]
        shortest = min(same, key=len)
        starts = [index for index, letter in enumerate(shortest) if letter in _MARKS]
        tails = [shortest[start:] for start in starts]
        endings += [tail for tail in tails if all(name.endswith(tail) for name in same)]
    return list(dict.fromkeys(endings))


def _count(images: str, masks: str, pairs: Pairs) -> tuple[np.ndarray, int]:
    """Return how many pixels have each of the 256 values, and how many label maps were read."""
    from mmcv.transforms import LoadImageFromFile
    from mmseg.datasets.transforms import LoadAnnotations

    reading = MapReading(reader=LoadAnnotations(), image_loader=LoadImageFromFile())
    rule = LabelRule(num_classes=None)
    stems = spread(pairs.stems)
    files = [
        (osp.join(images, stem + pairs.img_suffix), osp.join(masks, stem + pairs.seg_map_suffix))
        for stem in stems
    ]
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(lambda both: read_label_map(*both, reading, rule), files))
    faults = [report.fault for report in reports if report.fault is not None]
    if faults:
        kind, offender = faults[0]
        coloured = [
            path
            for (_, path), report in zip(files, reports, strict=True)
            if report.fault is not None and 'channels' in report.fault[1]
        ]
        if coloured:
            raise UsageError(_coloured(coloured))
        raise UsageError(f'{len(faults)} of {len(files)} {kind}: {printable_path(offender)}')
    total = np.zeros(256, dtype=np.int64)
    for report in reports:
        total += report.pixels if report.pixels is not None else 0
    return total, len(files)


def _coloured(paths: Sequence[str]) -> str:
    """Say what to do with masks that are pictures in colours, which are named."""
    from PIL import Image

    with Image.open(paths[0]) as image:
        pixels = np.asarray(image.convert('RGB')).reshape(-1, 3)
    values, counts = np.unique(pixels, axis=0, return_counts=True)
    order = np.argsort(-counts)[:_SHOWN]
    shown = ', '.join(' '.join(map(str, values[index])) for index in order)
    more = ', …' if len(values) > _SHOWN else ''
    return (
        f'{len(paths)} masks are pictures in colours, {printable_path(paths[0])} of {len(values)} '
        f'(r g b: {shown}{more}): expected one channel with the number of the class; the page '
        '"Your own masks" of the documentation has a script that converts them'
    )


def meaning_of(
    train: np.ndarray, val: np.ndarray, *, given: ClassNames | None, where: tuple[str, str]
) -> Meaning:
    """Decide how many classes there are and whether 0 is one of them.

    255 is ignored always. 0 is a class where label maps have it, unless there are as many names as
    other values.

    Args:
        train: number of pixels of each of the 256 values in the training data.
        val: the same of the validation data.
        given: names of the classes, None where there are none.
        where: folders of the label maps, for errors.

    Raises:
        UsageError: where the values fit no names, or are no numbers of classes.
    """
    labels = [int(v) for v in np.flatnonzero(train) if v != IGNORED]
    if not labels:
        raise UsageError(f'all pixels of the masks of {printable_path(where[0])} are 255, ignored')
    highest = max([*labels, *(int(v) for v in np.flatnonzero(val) if v != IGNORED)])
    shown = ', '.join(map(str, labels[:12])) + (', …' if len(labels) > 12 else '')
    if labels == [0] and train[IGNORED]:
        raise UsageError(
            f'the masks of {printable_path(where[0])} hold 0 and 255 alone, and 255 means ignored: '
            'write the second class as 1'
        )
    if given is not None:
        count = len(given.names)
        zero_is_ignored = highest == count
        if highest > count or (zero_is_ignored and count == IGNORED):
            raise UsageError(
                f'--classes has {count} names, and the masks have labels up to {highest} '
                f'({shown}): expected {highest + 1} names, or {highest} where 0 is to be ignored'
            )
        return Meaning(num_classes=count, reduce_zero_label=zero_is_ignored, named=given.names)
    if 2 * len(labels) < highest:
        raise UsageError(
            f'the masks of {printable_path(where[0])} have the labels {shown}, which are no '
            'numbers of classes 0, 1, 2, ...: write them so, or name every one up to the last by '
            '--classes FILE'
        )
    reduce = not (train[0] or val[0])
    return Meaning(num_classes=highest + (not reduce), reduce_zero_label=reduce)


def mask_settings(split: Split, below: Any) -> dict[str, Any]:
    """Return a split's settings of the data set, paths as ``below`` returns them."""
    settings = split.settings
    return dict(
        data_prefix=dict(img_path=below(settings['images']), seg_map_path=below(settings['masks'])),
        img_suffix=settings['img_suffix'],
        seg_map_suffix=settings['seg_map_suffix'],
        reduce_zero_label=settings['reduce_zero_label'],
    )
