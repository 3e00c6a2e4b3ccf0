"""Images that turn out to be broken during training are skipped, counted and named.

mmengine's data sets take another sample at random where the loading of one returns None. Here that
is what becomes of an image that cannot be read, until there are too many of them. The list of them
is a file, which all processes and their data loaders' workers append to, whatever they were started
by: it counts a file once, and is what a user needs to mend the data.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset

from mmwave.errors import UserError, printable, printable_path

from .image_files import is_reading_error, why

LIST_NAME = 'broken_images.txt'
_SHOWN = 5


class BrokenImageError(UserError):
    """Images that cannot be read: one of an evaluation, or too many in training."""

    def __init__(self, text: str) -> None:
        # A data loader raises its workers' errors again with their traceback in front.
        super().__init__(text.strip().splitlines()[-1].removeprefix(f'{_qualified_name()}: '))


def _qualified_name() -> str:
    return f'{BrokenImageError.__module__}.{BrokenImageError.__qualname__}'


class BrokenList:
    """The list of broken images of a run, one path with its reason a line.

    Args:
        path: of the list, which is made with its first entry.
        most: how many images may be in it.
    """

    def __init__(self, path: str | Path, most: int) -> None:
        self.path = Path(path)
        self.most = most
        self._read = 0
        self._told = 0

    def entries(self) -> list[str]:
        """Return the lines, each image once, in the order in which they came."""
        try:
            lines = self.path.read_text(encoding='utf-8').splitlines()
        except FileNotFoundError:
            return []
        return list({line.partition('\t')[0]: line for line in lines}.values())

    def news(self) -> list[str]:
        """Return the lines that came since the last call; where there are none it costs nothing."""
        length = self.path.stat().st_size if self.path.exists() else 0
        if length == self._read:
            return []
        self._read = length
        entries = self.entries()
        told, self._told = self._told, len(entries)
        return entries[told:]

    def add(self, path: str, reason: str) -> None:
        """Add an image.

        Raises:
            BrokenImageError: where it is one too many.
        """
        name = printable_path(path)
        if not any(entry.startswith(f'{name}\t') for entry in self.entries()):
            with self.path.open('a', encoding='utf-8') as file:  # one write: lines stay whole
                file.write(f'{name}\t{printable(reason)}\n')
        entries = self.entries()
        if len(entries) > self.most:
            last = ', '.join(describe_entry(entry) for entry in entries[-_SHOWN:])
            raise BrokenImageError(
                f'{len(entries)} image files cannot be read, more than max_broken_images='
                f'{self.most} allows: {"" if len(entries) <= _SHOWN else "…, "}{last}; mend the '
                f'files that {printable_path(self.path)} lists, take them out of the annotations, '
                'or raise data_check.max_broken_images'
            )


def describe_entry(entry: str) -> str:
    """Return a line of the list as messages show it."""
    path, _, reason = entry.partition('\t')
    return f'{path} ({reason})'


class PrepareData:
    """Stands in for ``prepare_data`` of one data set: None for a sample whose image is broken.

    Only what mmcv's ``LoadImageFromFile`` raises on the sample's own image is caught; other errors
    get a note that names the image.

    Args:
        dataset: one of mmengine's kind.
        broken: where the images are listed; None for a data set that is evaluated, which skips
            nothing: metrics of another image, or without one, are not those of the data set.
    """

    def __init__(self, dataset: BaseDataset, broken: BrokenList | None) -> None:
        self.dataset = dataset
        self.broken = broken

    def __call__(self, index: int) -> Any:
        prepare: Callable[[Any, int], Any] = type(self.dataset).prepare_data
        try:
            return prepare(self.dataset, index)
        except Exception as error:
            path = self.dataset.get_data_info(index).get('img_path')
            if not isinstance(path, str):
                raise
            if not is_reading_error(error, path):
                # A worker's error reaches the training as text, which its notes are a part of.
                error.add_note(f'at the image {printable_path(path)}')
                raise
            reason = why(path, error)
            if self.broken is None:
                raise BrokenImageError(
                    f'{printable_path(path)} cannot be read ({reason}): metrics without it are not '
                    'those of the data set; mend the file, or take it out of the annotations'
                ) from error
            self.broken.add(path, reason)
            return None


def can_skip(dataset: Any) -> bool:
    """Return whether a built data set takes another sample for one that is None."""
    return (
        isinstance(dataset, BaseDataset)
        and type(dataset).__getitem__ is BaseDataset.__getitem__
        and not dataset.test_mode
    )


def skip_broken_images(dataset: Any, broken: BrokenList) -> None:
    """Have a data set of a training skip broken images, where it can."""
    if can_skip(dataset):
        vars(dataset)['prepare_data'] = PrepareData(dataset, broken)


def name_broken_image(dataset: Any) -> None:
    """Have a data set that is evaluated end with one line at a broken image."""
    if isinstance(dataset, BaseDataset):
        vars(dataset)['prepare_data'] = PrepareData(dataset, None)
