"""Faults of one image file, judged by the step that will read it.

The first and last bytes of a file show whether it is whole, which costs next to nothing. Where they
leave a doubt the step itself decodes the file: decoders forgive much (bytes after the end, missing
chunks), each something else, and only what this one refuses is broken.
"""

import os
from traceback import walk_tb
from types import CodeType, FrameType
from typing import Any, NamedTuple

from PIL import ExifTags
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from mmwave.errors import printable

_ENDS = 64
# What stands between the step and the decoders; errors that they raise are those of settings.
_CALLERS = ('mmcv', 'mmengine')
# EXIF orientations that exchange width and height.
TURNED = (5, 6, 7, 8)
# The backends and colour types with which mmcv obeys them.
_TURNING_BACKENDS = ('cv2', 'pillow')
_TURNING_COLOURS = ('color', 'grayscale')
_READERS: dict[str, Any] = {'JPEG': JpegImageFile, 'PNG': PngImageFile}
EMPTY = 'empty'
_TEXT = 'a web page or other text'
_TIFF = 'a TIFF that is damaged, or of bands or numbers that it does not read'
_TIFF_SIGNATURES = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')


class Ends(NamedTuple):
    """What the first and the last bytes of a file show.

    Attributes:
        kind: the format, '' for an unknown one.
        doubt: why the file may be broken, None where nothing speaks for it.
        length: of the file in bytes.
    """

    kind: str
    doubt: str | None
    length: int = 0


class Size(NamedTuple):
    """Width and height of an image in pixels, and whether its EXIF orientation exchanged them."""

    width: int
    height: int
    turned: bool = False


def read_ends(path: str) -> Ends:
    """Judge a file by its first and last bytes.

    Raises:
        OSError: where it cannot be opened.
    """
    with open(path, 'rb') as file:
        head = file.read(_ENDS)
        length = os.fstat(file.fileno()).st_size
        file.seek(max(0, length - _ENDS))
        tail = file.read(_ENDS)
    kind, doubt = _judge(head, tail, length)
    return Ends(kind, doubt, length)


def _judge(head: bytes, tail: bytes, length: int) -> tuple[str, str | None]:
    if not head:
        return '', EMPTY
    if head.startswith(b'\xff\xd8\xff'):
        kind, whole = 'JPEG', b'\xff\xd9' in tail
    elif head.startswith(b'\x89PNG\r\n\x1a\n'):
        kind, whole = 'PNG', b'IEND\xaeB`\x82' in tail
    elif head.startswith(b'GIF8'):
        kind, whole = 'GIF', tail.endswith(b';')
    elif head.startswith(b'RIFF') and head[8:12] == b'WEBP':
        kind, whole = 'WebP', length >= 8 + int.from_bytes(head[4:8], 'little')
    elif head.startswith(b'BM'):
        kind, whole = 'BMP', length >= int.from_bytes(head[2:6], 'little')
    elif head.startswith(_TIFF_SIGNATURES):
        return 'TIFF', _TIFF
    else:
        text = head.removeprefix(b'\xef\xbb\xbf').lstrip().startswith((b'<', b'{'))
        return '', _TEXT if text else 'of no known image format'
    return kind, None if whole else f'a {kind} without its end'


def header_size(path: str, kind: str, step: Any) -> Size | None:
    """Return the size that a ``LoadImageFromFile`` will load an image with, by its header alone.

    Args:
        path: of the file.
        kind: the format by :func:`read_ends`.
        step: that will load it.

    Returns:
        The size, None where only decoding tells: for other formats than JPEG and PNG, a PNG with
        an EXIF chunk, a backend that is set elsewhere, and a damaged header.
    """
    if kind not in _READERS or step.imdecode_backend is None:
        return None
    try:
        # Not Image.open, which warns of large images; other backends than Pillow have no limit.
        with _READERS[kind](path) as image:
            width, height = image.size
            if kind == 'PNG':
                return None if 'exif' in image.info else Size(width, height)
            orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # of Pillow's readers, one for each kind of damage
        return None
    if turns(step) and orientation in TURNED:
        return Size(height, width, turned=True)
    return Size(width, height)


def turns(step: Any) -> bool:
    """Return whether a ``LoadImageFromFile`` turns an image as its EXIF orientation says."""
    import mmcv

    backend = step.imdecode_backend or mmcv.image.io.imread_backend
    return backend in _TURNING_BACKENDS and step.color_type in _TURNING_COLOURS


def decode(path: str, step: Any) -> Size | None:
    """Have a ``LoadImageFromFile`` read an image.

    Returns:
        The size that it loads, None where it is told to pass over what it cannot read.

    Raises:
        Exception: of :func:`is_reading_error`, where it cannot read the file.
    """
    results = step.transform({'img_path': path})
    if results is None:
        return None
    height, width = results['img_shape']
    return Size(width, height)


def is_reading_error(error: BaseException, path: str) -> bool:
    """Return whether ``LoadImageFromFile`` raised an error because a file cannot be read.

    Not because of its settings: those are mistakes of a config that concern every file.

    Args:
        error: as it was caught.
        path: of the file.
    """
    code = _loading_code()
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    loading = [frame for frame in frames if frame.f_code is code and _path_of(frame) == path]
    if not loading or isinstance(error, MemoryError):
        return False
    if isinstance(error, AssertionError):  # how the step itself refuses what it got from a decoder
        return frames[-1] is loading[-1]
    # cv2 raises from C, so that the last frame is its caller's.
    library = str(frames[-1].f_globals.get('__name__')).partition('.')[0]
    return isinstance(error, OSError) or type(error).__module__ == 'cv2' or library not in _CALLERS


def why(path: str, error: Exception) -> str:
    """Return in a few words why a file cannot be read, printable, by its ends or by the error."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    try:
        ends = read_ends(path)
    except (OSError, ValueError):
        ends = Ends('', None)
    text = '' if isinstance(error, AssertionError) else str(error).strip()
    if ends.doubt is not None and not (ends.kind == 'TIFF' and text):
        return ends.doubt
    return printable(text.splitlines()[0]) if text else f'a damaged {ends.kind}'.rstrip()


def _path_of(frame: FrameType) -> Any:
    return (frame.f_locals.get('results') or {}).get('img_path')


def _loading_code() -> CodeType:
    from mmcv.transforms import LoadImageFromFile

    return LoadImageFromFile.transform.__code__
