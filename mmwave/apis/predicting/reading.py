"""Pictures prepared for a model by the steps of its test pipeline."""

import copy
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.registry import TRANSFORMS
from PIL import Image, ImageOps

from mmwave.apis.usage import UsageError
from mmwave.engine.data_checks.datasets import bare_type
from mmwave.engine.data_checks.image_files import is_reading_error, why
from mmwave.errors import UserError, printable, printable_path

Picture = str | os.PathLike[str] | np.ndarray | Image.Image
"""What a model predicts: a path, an array of uint8 in BGR order, or an image of Pillow's."""


class UnreadableError(UserError):
    """A picture that cannot be read or prepared.

    Attributes:
        reason: why, without the picture's name.
        damaged: whether the file is what is wrong, and not a step of the pipeline.
    """

    def __init__(self, name: str, reason: str, *, damaged: bool = True) -> None:
        super().__init__(f'{name} cannot be read: {reason}')
        self.reason = reason
        self.damaged = damaged


class Reading(NamedTuple):
    """A picture that was read.

    Attributes:
        image: as the pipeline loads it, uint8 in BGR order (H, W, 3); turned as EXIF says.
        data: what the pipeline returns, for a batch.
    """

    image: np.ndarray
    data: Mapping[str, Any]


class Reader:
    """Read and prepare single pictures by a test pipeline, without labels.

    Args:
        pipeline: settings of its steps.

    Raises:
        UsageError: where none of them reads an image.
    """

    def __init__(self, pipeline: Sequence[Mapping[str, Any]]) -> None:
        settings = without_labels(pipeline)
        kinds = [bare_type(step) for step in settings]
        readers = [i for i, kind in enumerate(kinds) if kind.startswith('Load') and 'Image' in kind]
        if not readers:
            raise UsageError(
                f'the test pipeline reads no image: expected LoadImageFromFile in {kinds}'
            )
        steps = [TRANSFORMS.build(copy.deepcopy(step)) for step in settings]
        self._loading, self._preparing = steps[: readers[0] + 1], steps[readers[0] + 1 :]

    def __call__(self, picture: Picture) -> Reading:
        """Read one picture.

        Raises:
            UnreadableError: where it cannot be read, or a step cannot prepare it.
            UserError: where it is of another type than :data:`Picture`.
        """
        if isinstance(picture, str | os.PathLike):
            path = os.fspath(picture)
            name, results = printable_path(path), self._load(path)
        else:
            name, results = 'the picture', self._given(picture)
        image = results['img']
        # A step may write into the array.
        results.update(img=image.copy(), img_id=0, sample_idx=0)
        try:
            for step in self._preparing:
                results = step(results)
        except (ArithmeticError, AssertionError, LookupError, ValueError, _cv2_error()) as error:
            height, width = image.shape[:2]
            raise UnreadableError(
                f'{name} ({width} x {height})',
                f'{type(step).__name__} raised {type(error).__name__}: {printable(error)}',
                damaged=False,
            ) from error
        return Reading(_for_drawing(image), results)

    def _load(self, path: str) -> dict[str, Any]:
        results: Any = dict(img_path=path)
        try:
            for step in self._loading:
                results = step(results)
        except Exception as error:
            if not is_reading_error(error, path):
                raise
            raise UnreadableError(printable_path(path), why(path, error)) from error
        if results is None:  # the step is told to pass over what it cannot read
            raise UnreadableError(printable_path(path), 'it is damaged')
        return results

    def _given(self, picture: Any) -> dict[str, Any]:
        """Return what the loading step makes of a file, for a picture in memory."""
        step = self._loading[-1]
        image = _pixels(picture)
        if str(getattr(step, 'color_type', 'color')).startswith('grayscale'):
            import cv2

            image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        size = image.shape[:2]
        if getattr(step, 'to_float32', False):
            image = image.astype(np.float32)
        return dict(img=image, img_shape=size, ori_shape=size)


def without_labels(pipeline: Any) -> list[Any]:
    """Return the settings of a pipeline without the steps that load annotations."""
    steps: list[Any] = []
    for step in pipeline:
        if isinstance(step, Mapping):
            if bare_type(step).startswith('Load') and 'Annotation' in bare_type(step):
                continue
            step = copy.deepcopy(dict(step))
            if isinstance(step.get('transforms'), list | tuple):
                step['transforms'] = without_labels(step['transforms'])
            steps.append(step)
        elif kept := without_labels(step):  # one of several sequences; of labels alone, none
            steps.append(kept)
    return steps


def surprises(path: str) -> Iterator[str]:
    """Yield what of a picture's file gets lost when it is read, by its header as a rule."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of large images
            with Image.open(path) as image:
                yield from _lost(image)
    except Exception:  # Pillow's readers raise anything of a damaged file, or do not know it
        return


def _lost(image: Image.Image) -> Iterator[str]:
    # The form of the file's numbers: 'RGB;16B'. 'BGR;16' are 5, 6 and 5 bits.
    forms = [tile[3] if isinstance(tile[3], str) else (tile[3] or [''])[0] for tile in image.tile]
    deep = any(str(form).endswith((';16B', ';16L', ';16N')) for form in forms)
    if deep or image.mode.startswith(('I', 'F')):
        yield 'more than 8 bits a channel are reduced to 8'
    if image.mode == 'CMYK':
        yield 'CMYK colours are converted without their colour profile'
    if getattr(image, 'n_frames', 1) > 1:
        yield 'the first of several images in the file alone is predicted'
    if image.mode in ('RGBA', 'LA', 'PA'):
        if image.getchannel('A').getextrema()[0] < 255:
            yield 'transparency is ignored: what it hides is seen'
    elif 'transparency' in image.info:
        yield 'transparency is ignored: what it hides is seen'


def _pixels(picture: Any) -> np.ndarray:
    """Return a picture in memory as uint8 in BGR order, as files are read."""
    if isinstance(picture, Image.Image):
        return np.asarray(ImageOps.exif_transpose(picture).convert('RGB'))[..., ::-1].copy()
    if not isinstance(picture, np.ndarray):
        raise UserError(
            f'a picture is a path, an array of uint8 in BGR order or an image of Pillow, not a '
            f'{type(picture).__name__}'
        )
    channels = picture.shape[2] if picture.ndim == 3 else 1 if picture.ndim == 2 else 0
    if picture.dtype != np.uint8 or channels not in (1, 3, 4) or not picture.size:
        raise UserError(
            f'an array of {picture.dtype} and shape {picture.shape} is no picture: expected uint8 '
            'in BGR order of shape (height, width), or (height, width, 1, 3 or 4)'
        )
    if channels == 1:
        return np.repeat(picture.reshape(*picture.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(picture[..., :3])


def _for_drawing(image: np.ndarray) -> np.ndarray:
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[2] < 3:
        image = np.repeat(image[..., :1], 3, axis=2)
    return image[..., :3].clip(0, 255).astype(np.uint8)


def _cv2_error() -> type[Exception]:
    import cv2

    return cv2.error
