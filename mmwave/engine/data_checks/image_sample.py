"""A sample of the image files of a data set: which are broken, and which have another size."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mmwave.errors import printable_path

from .findings import Findings
from .image_files import EMPTY, Ends, Size, decode, header_size, is_reading_error, read_ends, why
from .samples import BROKEN, MISSING

_RESIZED = 'are loaded in another size than their annotations state'
_TURNED = (
    'are turned by their EXIF orientation when they are loaded, which their annotations are not '
    "(LoadImageFromFile(color_type='color_ignore_orientation') loads them unturned)"
)
_BEYOND = 'have boxes beyond'
# So much of a data set is decoded at most, to be sure of what the headers leave in doubt.
_DECODED_BYTES = 256 * 2**20
# Boxes may reach a little beyond an image of the right size.
_SLACK = 1.05
# The share of images with boxes outside of them that shows the sizes of the files to be wrong.
_PROOF = 0.1


class Sample(NamedTuple):
    """An image that is looked into.

    Attributes:
        path: of the file.
        stated: width and height by the annotations, None where they state none.
        reach: right and bottom of what the boxes cover.
    """

    path: str
    stated: tuple[int, int] | None
    reach: tuple[float, float]


def sample_of(info: Mapping[str, Any]) -> Sample:
    """Take what is needed from the dict that a data set hands to its pipeline."""
    stated = None
    if 'instances' in info and info.get('width') and info.get('height'):
        stated = (info['width'], info['height'])
    boxes = [box for i in info.get('instances') or () if len(box := i.get('bbox') or ()) == 4]
    reach = tuple(max((box[side] for box in boxes), default=0) for side in (2, 3))
    return Sample(info['img_path'], stated, reach)


def look_into(
    found: Findings,
    step: Any,
    samples: Sequence[tuple[int, Sample]],
    in_threads: Callable[..., Iterable[Any]],
    *,
    whole: bool = False,
) -> None:
    """Put aside what is wrong with images: :func:`settle` decides, when all processes are added.

    Args:
        found: receives the faults.
        step: the ``LoadImageFromFile`` of the data set.
        samples: index in the data set and image; files that are missing or empty are passed over.
        in_threads: like ``map``.
        whole: decode every image; else those alone whose first and last bytes leave a doubt.
    """

    def look(item: tuple[int, Sample]) -> tuple[Ends, Size | None, _Decoded | None] | None:
        path, stated, _ = item[1]
        try:
            ends = read_ends(path)
        except (OSError, ValueError):
            return None
        if whole and ends.doubt != EMPTY:
            return ends, None, _decode(path, step)
        return ends, None if stated is None else header_size(path, ends.kind, step), None

    budget = _DECODED_BYTES
    known: set[str] = set()
    for (index, sample), seen in zip(samples, in_threads(look, samples), strict=True):
        if seen is None or seen[0].doubt == EMPTY:
            continue
        found.opened += 1
        ends, size, decoded = seen
        # The first of each format shows whether the step reads that format at all.
        doubtful = ends.doubt or ends.kind not in known or (sample.stated and size is None)
        if decoded is None and doubtful:
            if ends.length > budget:
                continue
            budget -= ends.length
            known.add(ends.kind)
            decoded = _decode(sample.path, step)
        if decoded is not None:
            if decoded.broken:
                found.put_aside(BROKEN, index, decoded.broken)
            if decoded.size is None:
                continue
            # Else the header tells of turning as well.
            if size is None or size[:2] != decoded.size[:2]:
                size = decoded.size
        if size is not None:
            _compare(found, index, sample, size)


class _Decoded(NamedTuple):
    """What a step makes of an image.

    Attributes:
        size: None where it cannot be read, or the step says nothing.
        broken: path and reason where the file is broken, else empty.
    """

    size: Size | None
    broken: str = ''


def _decode(path: str, step: Any) -> _Decoded:
    try:
        return _Decoded(decode(path, step))
    except Exception as error:  # of the decoders, one for each kind of damage
        broken = is_reading_error(error, path)
        return _Decoded(None, f'{printable_path(path)} ({why(path, error)})' if broken else '')


def _compare(found: Findings, index: int, sample: Sample, size: Size) -> None:
    if sample.stated is None or sample.stated == (size.width, size.height):
        return
    turned = size.turned and sample.stated == (size.height, size.width)
    stated = ' x '.join(map(str, sample.stated))
    text = f'{printable_path(sample.path)} ({size.width} x {size.height}, annotations: {stated})'
    found.put_aside(_TURNED if turned else _RESIZED, index, text)
    right, bottom = sample.reach
    if right > size.width * _SLACK or bottom > size.height * _SLACK:
        found.put_aside(_BEYOND, index, text)


def settle(found: Findings, *, most_broken: int, ignored: bool = False) -> None:
    """Decide which of the faults put aside end the run.

    Args:
        found: of all processes together.
        most_broken: how many files that cannot be read may be skipped.
        ignored: the pipeline is told to pass over files that are missing or cannot be read.
    """
    for kind in (MISSING, BROKEN):
        if kind not in found.aside:
            continue
        count = found.aside[kind][0]
        # Where all are broken there is nothing to take in their place.
        fault = count >= found.images or (not ignored and (kind == MISSING or count > most_broken))
        meaning = kind
        if not fault:
            reason = 'ignore_empty=True' if ignored else f'max_broken_images={most_broken}'
            meaning += f' and will be skipped ({reason})'
        elif kind == BROKEN and most_broken:
            meaning += f' (max_broken_images={most_broken})'
        found.settle(kind, fault=fault, meaning=meaning)
    _settle_sizes(found)


def _settle_sizes(found: Findings) -> None:
    """Make sizes a fault where most are wrong and boxes reach beyond the images that are loaded.

    Then the boxes are those of other images. Else they may well be right, and only the sizes beside
    them wrong, which training does without.
    """
    counts = {kind: found.aside.get(kind, (0,))[0] for kind in (_RESIZED, _TURNED, _BEYOND)}
    wrong, beyond = counts[_RESIZED] + counts[_TURNED], counts[_BEYOND]
    fault = 2 * wrong > found.opened and beyond >= _PROOF * found.opened
    found.aside.pop(_BEYOND, None)
    for kind in (_RESIZED, _TURNED):
        if kind in found.aside:
            meaning = f'of {found.opened} images {kind}'
            if beyond:
                meaning += f'; the boxes of {beyond} images reach beyond what is loaded'
            found.settle(kind, fault=fault, meaning=meaning)
