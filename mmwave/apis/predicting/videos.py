"""Videos read frame by frame, and written under their names when they are complete."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from mmwave.errors import UserError, printable_path

from .reading import UnreadableError

_CODEC = 'mp4v'
_FRAMES_A_SECOND = 25.0  # where a file states none, or nonsense


class Video:
    """A video to read.

    Args:
        path: of the file.

    Attributes:
        fps: frames a second.
        frames: how many there are by the file's own word, which may be wrong; 0 for unknown.

    Raises:
        UnreadableError: where it cannot be opened.
    """

    def __init__(self, path: str) -> None:
        import cv2

        self._path = path
        self._capture = cv2.VideoCapture(path)
        if not self._capture.isOpened():
            reason = 'it is empty' if not os.path.getsize(path) else 'it is damaged, or no video'
            raise UnreadableError(printable_path(path), reason)
        stated = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = stated if 0.01 < stated < 1000 else _FRAMES_A_SECOND
        self.frames = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the frames, uint8 in BGR order (H, W, 3)."""
        try:
            while True:
                done, frame = self._capture.read()
                if not done:
                    return
                yield frame
        finally:
            self._capture.release()


class VideoWriter:
    """Collects frames of one size."""

    def __init__(self, path: str, fps: float) -> None:
        self._path, self._fps = path, fps
        self._writer = None
        self.size: tuple[int, int] | None = None

    def add(self, frame: np.ndarray) -> None:
        """Append a frame, uint8 in BGR order; one of another size is brought to the first's."""
        import cv2

        size = (frame.shape[1], frame.shape[0])
        if self._writer is None:
            self.size = size
            codec = cv2.VideoWriter.fourcc(*_CODEC)
            self._writer = cv2.VideoWriter(self._path, codec, self._fps, size)
            if not self._writer.isOpened():
                raise UserError(f'no video of {size[0]} x {size[1]} pixels can be written here')
        if size != self.size:
            frame = cv2.resize(frame, self.size, interpolation=cv2.INTER_AREA)
        self._writer.write(np.ascontiguousarray(frame))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()


@contextmanager
def whole_video(path: Path, fps: float) -> Iterator[VideoWriter]:
    """Open a new video that gets the name ``path`` when the block ends without an error.

    Args:
        path: ends in ``.mp4``; its folder is made.
        fps: frames a second.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not through whole_file: cv2 writes to names alone.
    descriptor, part = tempfile.mkstemp(
        suffix='.mp4', prefix=f'.{path.stem[:50]}.', dir=path.parent
    )
    os.close(descriptor)
    writer = VideoWriter(part, fps)
    try:
        try:
            yield writer
        finally:
            writer.close()
        if writer.size is not None:
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(part, 0o666 & ~mask)  # a temporary file is its owner's alone
            os.replace(part, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)
