"""Who reads the label maps of a segmentation data set, and what may be judged of them.

A label map is judged only where mmseg's own ``LoadAnnotations`` reads it and nothing but stock
steps see it: a step of the user's own may remap values, resize, or change the path.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from torch import nn

from .image_files import TURNED, turns
from .pipeline import is_stock, reads_as_stock, steps

_READER = ('mmseg.datasets.transforms.loading', 'LoadAnnotations')
_IMAGE_LOADER = ('mmcv.transforms.loading', 'LoadImageFromFile')
# Each brings image and label map to one size, whatever sizes they had.
_RESIZERS = ('Resize', 'RandomResize', 'RandomChoiceResize')
_KEEPING_SIZES = ('RandomFlip', 'PhotoMetricDistortion')


@dataclass(frozen=True, kw_only=True)
class MapReading:
    """How label maps are read.

    Attributes:
        reader: mmseg's ``LoadAnnotations`` of the pipeline.
        image_loader: mmcv's ``LoadImageFromFile``, None where something else loads the image.
        before: the first part of the user's own that is at work before the reader, '' for none.
        after: the first one after it.
        resizer: the resizing step after it, None where another one depends on the sizes first.
    """

    reader: Any
    image_loader: Any = None
    before: str = ''
    after: str = ''
    resizer: Any = None

    @property
    def left_to(self) -> str:
        """The part of the user's own that values and sizes are left to, '' for none."""
        return self.before or self.after

    def contradicts(self, info: Mapping[str, Any]) -> str:
        """Say how the reader contradicts the data set of a sample, '' for not: mmseg would stop."""
        own, its = self.reader.reduce_zero_label, info.get('reduce_zero_label')
        if own is None or own == its:
            return ''
        return (
            f'reduce_zero_label is {own} in LoadAnnotations and {its} in the data set: set it in '
            'the data set alone'
        )

    def read(self, path: str) -> np.ndarray:
        """Return a label map as the reader decodes it, before it becomes uint8.

        Raises:
            Exception: whatever the file and the backend of the reader raise.
        """
        import mmcv
        from mmengine import fileio

        content = fileio.get(path, backend_args=self.reader.backend_args)
        backend = self.reader.imdecode_backend
        labels = mmcv.imfrombytes(content, flag='unchanged', backend=backend)
        if labels is None:
            raise ValueError(f'{backend or mmcv.image.io.imread_backend} cannot decode it')
        return labels.squeeze()

    def other_image_size(self, path: str, size: tuple[int, ...]) -> tuple[int, int] | None:
        """Return height and width of an image as it is loaded, where they are not ``size``.

        None as well where the image cannot be read, which is a fault of its own, and where the
        step that loads it is not stock.
        """
        loader = self.image_loader
        if loader is None or '://' in path or _header_size(path, turns(loader)) == size:
            return None
        # What the header says is not what every backend makes of the file: only decoding tells.
        import mmcv
        from mmengine import fileio

        try:
            content = fileio.get(path, backend_args=loader.backend_args)
            image = mmcv.imfrombytes(
                content, flag=loader.color_type, backend=loader.imdecode_backend
            )
        except Exception:
            return None
        if image is None or image.shape[:2] == size:
            return None
        return image.shape[0], image.shape[1]

    def is_resized_alike(self, image: tuple[int, int], labels: tuple[int, ...]) -> bool:
        """Return whether image and label map of these sizes have one size after the resizer."""
        if self.resizer is None:
            return False
        resize = getattr(self.resizer, 'resize', self.resizer)
        same_aspect = image[0] * labels[1] == image[1] * labels[0]
        return same_aspect or not getattr(resize, 'keep_ratio', True)


def map_reading(
    dataset: Any, wrappers: tuple[Any, ...] = (), model: nn.Module | None = None
) -> MapReading | None:
    """Find the step of a built data set that reads its label maps.

    Args:
        dataset: without wrappers.
        wrappers: those around it, whose transforms see the label maps last.
        model: whose preprocessor sees them after that.

    Returns:
        None where it is not mmseg's, or the samples come from methods of the user's own.
    """
    if not reads_as_stock(dataset):
        return None
    sequence = tuple(_sequence(getattr(dataset, 'pipeline', None)))
    position = next((i for i, step in enumerate(sequence) if _is(step, _READER)), None)
    if position is None:
        return None
    # Of the steps inside of wrappers as well: those before the reader stand before it there too.
    every = steps(dataset)
    at = next(i for i, step in enumerate(every) if step is sequence[position])
    later = [*every[at + 1 :], *_later_parts(wrappers, model)]
    changing = (step for step in sequence[position + 1 :] if not _keeps_sizes(step))
    following = next(changing, None)
    resizes = type(following).__name__ in _RESIZERS and is_stock(following)
    loaders = [step for step in sequence[:position] if _is(step, _IMAGE_LOADER)]
    return MapReading(
        reader=sequence[position],
        # A client of the deprecated kind may hold anything.
        image_loader=next((s for s in loaders if s.file_client_args is None), None),
        before=next((type(s).__name__ for s in every[:at] if not is_stock(s)), ''),
        after=next((type(s).__name__ for s in later if not is_stock(s)), ''),
        resizer=following if resizes else None,
    )


def _sequence(pipeline: Any) -> Iterator[Any]:
    """Yield the steps that every sample passes: those of pipelines inside of pipelines too."""
    for step in getattr(pipeline, 'transforms', ()):
        if type(step).__name__ == 'Compose':
            yield from _sequence(step)
        else:
            yield step


def _later_parts(wrappers: tuple[Any, ...], model: nn.Module | None) -> Iterator[Any]:
    for wrapper in reversed(wrappers):
        yield wrapper
        pipeline = getattr(wrapper, 'pipeline', None)
        # MultiImageMixDataset has a list of steps.
        yield from pipeline if isinstance(pipeline, list) else steps(wrapper)
    while isinstance(getattr(model, 'module', None), nn.Module):
        model = model.module  # type: ignore[union-attr, assignment]
    preprocessor = getattr(model, 'data_preprocessor', None)
    if preprocessor is not None:
        yield preprocessor


def _is(step: Any, name: tuple[str, str]) -> bool:
    # A subclass may read otherwise, and the task libraries are not imported here.
    return (type(step).__module__, type(step).__qualname__) == name


def _keeps_sizes(step: Any) -> bool:
    return is_stock(step) and type(step).__name__ in _KEEPING_SIZES


def _header_size(path: str, turning: bool) -> tuple[int, int] | None:
    """Return height and width by the header of a file, None where Pillow cannot tell."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Asked of JPEG only: for PNG, Pillow would decode the whole image to answer.
            jpeg = turning and image.format in ('JPEG', 'MPO')
            turned = jpeg and image.getexif().get(ExifTags.Base.Orientation) in TURNED
    except Exception:  # of Pillow's readers, one for each kind of damage, and its limit of pixels
        return None
    return (width, height) if turned else (height, width)
