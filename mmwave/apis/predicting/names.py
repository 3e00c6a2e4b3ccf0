"""Names of the files that are written for pictures and videos, no two alike."""

import os.path as osp
from collections.abc import Sequence

from mmwave.engine.hooks.picture_names import PictureNames


class OutputNames:
    """Paths without suffix, below the folder of results, of what is written for inputs.

    They are the inputs' own names without their suffix as long as these differ, else with the
    folders below the one that all inputs are in; where they differ by suffix alone (``a.jpg`` and
    ``a.png`` in one folder) it stays.

    Args:
        paths: of the inputs.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        stems = [osp.splitext(osp.abspath(path))[0].lower() for path in paths]
        self._whole = len(set(stems)) < len(stems)
        self._names = PictureNames([self._key(path) for path in paths])

    def of(self, path: str) -> str:
        """Return what the files that are written for an input are called, without suffix."""
        return self._names.file(self._key(path))

    def _key(self, path: str) -> str:
        return path if self._whole else osp.splitext(path)[0]
