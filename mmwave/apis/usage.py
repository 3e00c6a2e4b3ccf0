"""What can be checked of a call before torch and mmengine are imported."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from mmwave.errors import UserError

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
INSTALL = {
    **dict.fromkeys(('mmengine', 'numpy', 'safetensors', 'torch'), 'mmwave-suite'),
    **dict.fromkeys(('cv2', 'mmcv', 'torchvision'), 'mmwave-suite[mmcv]'),
    **dict.fromkeys(('matplotlib', 'timm'), 'mmwave-suite[bench]'),
    **dict.fromkeys(('onnx', 'onnxruntime', 'onnxscript', 'openvino'), 'mmwave-suite[export]'),
    'tensorboard': 'mmwave-suite[track]',
    'shtab': 'mmwave-suite[completion]',
    'mmdet': 'mmwave-suite[det]',
    'mmpretrain': 'mmwave-suite[cls]',
    'mmseg': 'mmwave-suite[seg]',
}
"""Library -> what to install for it."""


class UsageError(UserError):
    """A call that cannot be carried out as given; the message says what to give instead."""


class PreflightError(UserError):
    """A config that cannot run here; the message is one line and says what to change."""


def close_names(word: str, names: Iterable[str]) -> str:
    """Return ``did you mean …?`` with the names that are close to a word, '' where none is."""
    close = difflib.get_close_matches(word, list(names), n=3)
    return f'did you mean {" or ".join(close)}?' if close else ''


@contextmanager
def libraries_named() -> Iterator[None]:
    """Raise :class:`UsageError` where an import fails within, saying what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in INSTALL:
            raise
        raise UsageError(
            f"{error.name} is not installed: pip install '{INSTALL[error.name]}'"
        ) from error
