"""Images that files are compared on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from numpy.typing import NDArray
from torch import Tensor

from mmwave.apis import UsageError
from mmwave.apis.places import image_folder, is_local, places_of
from mmwave.errors import UserError, printable_path

_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
_MOST = 8


@dataclass(frozen=True)
class Images:
    """Images to compare on.

    Attributes:
        source: where they are from, in words.
        pictures: (H, W, 3) of bytes, blue first, of any sizes.
    """

    source: str
    pictures: Sequence[NDArray]

    def batch(self, count: int, size: tuple[int, int], norm: 'Normalisation') -> Tensor:
        """Return (count, 3, *size) as the model receives it; further images are mirrored ones."""
        chosen = []
        for index in range(count):
            picture = self.pictures[index % len(self.pictures)]
            if (index // len(self.pictures)) % 2:
                picture = np.ascontiguousarray(picture[:, ::-1])
            chosen.append(norm(cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)))
        return torch.stack(chosen)


@dataclass(frozen=True)
class Normalisation:
    """What is done to an image before the model.

    Attributes:
        mean: subtracted, a value per channel.
        std: divided by afterwards.
        channel_order: ``'rgb'`` or ``'bgr'``, of the model's input, ``mean`` and ``std``.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: str

    @classmethod
    def of(cls, model: torch.nn.Module) -> 'Normalisation':
        """Read it from a model's data preprocessor."""
        part = getattr(model, 'data_preprocessor', None)
        swaps = getattr(part, '_channel_conversion', getattr(part, 'to_rgb', False))
        mean, std = (getattr(part, name, None) for name in ('mean', 'std'))
        return cls(
            _numbers(mean) if mean is not None else (0.0,) * 3,
            _numbers(std) if std is not None else (1.0,) * 3,
            'rgb' if swaps else 'bgr',
        )

    def __call__(self, picture: NDArray) -> Tensor:
        """(H, W, 3) of bytes, blue first -> (3, H, W)."""
        picture = picture[..., ::-1] if self.channel_order == 'rgb' else picture
        values = (picture.astype(np.float32) - self.mean) / self.std
        return torch.from_numpy(values.astype(np.float32)).permute(2, 0, 1).contiguous()


def _numbers(values: Tensor) -> tuple[float, ...]:
    """Return values of float32 as they were typed, 123.675 rather than 123.67500305."""
    return tuple(float(f'{value:.7g}') for value in values.flatten().tolist())


def find_images(cfg: Config, folder: str | None) -> Images:
    """Return the images of a folder, else of the config's test data, else generated ones.

    Args:
        cfg: of the model.
        folder: searched with the folders in it.

    Raises:
        UsageError: where there is no such folder, or no image that can be read in it.
    """
    if folder is not None:
        if not folder or not Path(folder).expanduser().is_dir():
            raise UsageError(f'--images {printable_path(folder)!r}: no such folder')
        pictures = _read(Path(folder).expanduser())
        if not pictures:
            raise UsageError(f'--images {printable_path(folder)}: no image that can be read in it')
        return Images(f'{len(pictures)} images of {printable_path(folder)}', pictures)
    for found in _test_folders(cfg):
        if pictures := _read(found):
            return Images(f'{len(pictures)} images of the test data', pictures)
    return Images('generated images, since the test data are not here', _generated())


def _test_folders(cfg: Config) -> list[Path]:
    try:
        places = list(places_of(cfg, 'test', needed=False))
    except UserError:
        return []
    folders = [image_folder(p.dataset) for p in places if isinstance(p.dataset, Mapping)]
    return [Path(f).expanduser() for f in folders if is_local(f) and Path(f).is_dir()]


def _read(folder: Path) -> list[NDArray]:
    paths = (p for p in folder.rglob('*') if p.suffix.lower() in _SUFFIXES)
    read = (cv2.imread(str(path)) for path in sorted(islice(paths, 1000))[: 2 * _MOST])
    return [picture for picture in read if picture is not None][:_MOST]


def _generated() -> list[NDArray]:
    """Return blurred noise under noise, so that neither edges nor areas are missing."""
    rng = np.random.default_rng(0)
    pictures = []
    for side in (4, 7, 13, 24):
        coarse = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        smooth = cv2.resize(coarse, (256, 256), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        noisy = smooth + rng.integers(-20, 21, smooth.shape)
        pictures.append(noisy.clip(0, 255).astype(np.uint8))
    return pictures
