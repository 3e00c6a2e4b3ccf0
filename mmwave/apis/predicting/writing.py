"""Predictions as data: JSON lines, COCO results, label maps and tables, written whole."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from mmwave.checkpoint import whole_file
from mmwave.errors import UserError

from .call import data_file
from .classes import Palette

BEST = 5
"""Classes of a picture that a classifier's table has, the best ones."""


class Item(NamedTuple):
    """What was predicted.

    Attributes:
        file: path of the picture or video, as it was found.
        frame: of a video, from 0; None for a picture.
        width: in pixels, as it was read.
        height: in pixels, as it was read.
        seconds: of a frame, since the beginning of its video; None for a picture.
        labels: the label map's path below the folder of results, None where there is none.
    """

    file: str
    frame: int | None
    width: int
    height: int
    seconds: float | None = None
    labels: str | None = None

    def place(self) -> dict[str, Any]:
        """Return what names it in a file."""
        found: dict[str, Any] = dict(file=self.file)
        if self.frame is not None:
            found.update(frame=self.frame, seconds=self.seconds)
        return dict(found, width=self.width, height=self.height)


class Writer(Protocol):
    """Writes predictions, one after the other."""

    def add(self, item: Item, sample: Any) -> None:
        """Write what was predicted for a picture or frame."""
        ...


@contextmanager
def data_writer(task: str, form: str, out: Path, classes: Sequence[str]) -> Iterator[Writer]:
    """Open the data file of a task, which is there when the block ends without an error.

    Args:
        task: of :data:`mmwave.apis.predicting.call.TASKS`.
        form: ``'lines'`` or ``'coco'``.
        out: folder of results.
        classes: names by index.
    """
    path = out / data_file(task, form)
    with whole_file(path) as file:
        text = io.TextIOWrapper(file, encoding='utf-8', newline='', write_through=True)
        if task == 'classification':
            writer: Any = Table(text, classes)
        elif form == 'coco':
            writer = Coco(text, classes)
        else:
            writer = Lines(text, classes)
        yield writer
        if isinstance(writer, Coco):
            writer.end(out / 'images.json')
        text.flush()
        text.detach()


class Table:
    """A CSV file: for each picture a row for each of its best classes, the best first."""

    def __init__(self, file: IO[str], classes: Sequence[str]) -> None:
        self._rows = csv.writer(file, lineterminator='\n')
        self._classes = classes
        self._rows.writerow(['file', 'frame', 'rank', 'label', 'class', 'score'])

    def add(self, item: Item, sample: Any) -> None:
        scores = sample.pred_score.float().cpu().numpy()
        best = np.argsort(-scores, kind='stable')[:BEST]
        frame = '' if item.frame is None else item.frame
        for rank, label in enumerate(best.tolist(), 1):
            name = _name(self._classes, label)
            self._rows.writerow([item.file, frame, rank, label, name, repr(float(scores[label]))])


class Lines:
    """A JSON document a line, one for each picture or frame."""

    def __init__(self, file: IO[str], classes: Sequence[str]) -> None:
        self._file, self._classes = file, classes

    def add(self, item: Item, sample: Any) -> None:
        document = item.place()
        if item.labels is not None:
            labels = sample.pred_sem_seg.data[0].cpu().numpy()
            indices, counts = np.unique(labels, return_counts=True)
            pairs = sorted(zip(counts.tolist(), indices.tolist(), strict=True), reverse=True)
            shares = {_name(self._classes, label): n / labels.size for n, label in pairs}
            document.update(labels=item.labels, shares=shares)
        else:
            document['objects'] = [
                dict(label=label, name=_name(self._classes, label), score=score, bbox=box, **mask)
                for label, score, box, mask in _objects(sample)
            ]
        self._file.write(f'{json.dumps(document, ensure_ascii=False)}\n')


class Coco:
    """COCO results, and beside them the images and categories that their numbers are of.

    An image's id is its number in order from 1, a category's its class index plus 1.
    """

    def __init__(self, file: IO[str], classes: Sequence[str]) -> None:
        self._file, self._classes = file, classes
        self._images: list[dict[str, Any]] = []
        self._separator = '['

    def add(self, item: Item, sample: Any) -> None:
        number = len(self._images) + 1
        place = item.place()
        self._images.append(dict(id=number, file_name=place.pop('file'), **place))
        for label, score, (x1, y1, x2, y2), mask in _objects(sample):
            box = [x1, y1, x2 - x1, y2 - y1]
            result = dict(image_id=number, category_id=label + 1, bbox=box, score=score)
            if 'mask' in mask:
                result['segmentation'] = mask['mask']
            self._file.write(f'{self._separator}\n{json.dumps(result)}')
            self._separator = ','

    def end(self, images: Path) -> None:
        """Complete the results, and write what they refer to."""
        self._file.write('[]\n' if self._separator == '[' else '\n]\n')
        categories = [dict(id=i, name=name) for i, name in enumerate(self._classes, 1)]
        document = dict(images=self._images, categories=categories, annotations=[])
        with whole_file(images) as file:
            file.write(json.dumps(document, ensure_ascii=False, indent=1).encode())


def write_picture(path: Path, image: np.ndarray) -> None:
    """Write a picture in BGR order, in the format of its suffix; its folder is made."""
    import cv2

    done, content = cv2.imencode(path.suffix, image)
    if not done:
        raise UserError(f'{path} cannot be encoded: {image.shape[1]} x {image.shape[0]} pixels')
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(content.tobytes())


def write_label_map(path: Path, labels: np.ndarray, palette: Palette) -> None:
    """Write class indices as a PNG whose values they are, shown in their colours up to 256.

    Args:
        path: ends in ``.png``; its folder is made.
        labels: (H, W).
        palette: colours by index; for more than 256 the PNG has 16 bits and shows none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if len(palette) > 256:
        image = Image.fromarray(labels.astype(np.uint16))
    else:
        image = Image.fromarray(labels.astype(np.uint8))
        image.putpalette([part for colour in palette for part in colour])
    with whole_file(path) as file:
        image.save(file, 'PNG')


def _name(classes: Sequence[str], label: int) -> str:
    return classes[label] if label < len(classes) else f'class {label}'


def _objects(sample: Any) -> Iterator[tuple[int, float, list[float], dict[str, Any]]]:
    """Yield label, score, box (x1, y1, x2, y2) and, of models with masks, RLE of objects."""
    found = sample.pred_instances.cpu()
    masks: list[dict[str, Any]] = [{}] * len(found)
    if 'masks' in found:
        from mmdet.structures.mask import encode_mask_results

        encoded = encode_mask_results(np.asarray(found.masks))
        masks = [dict(mask=dict(size=m['size'], counts=m['counts'].decode())) for m in encoded]
    labels, scores = found.labels.tolist(), found.scores.tolist()
    yield from zip(labels, scores, found.bboxes.float().tolist(), masks, strict=True)
