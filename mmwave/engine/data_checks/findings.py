"""The tally of faults in one data set, over samples and processes, and its messages."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from mmwave.errors import UserError

from .tally import Tally, add_tally, count_fault, tally_lines


class DataError(UserError):
    """Data that cannot be trained or evaluated on."""


@dataclass
class Findings:
    """What one process, or all together, found in one data set.

    Attributes:
        samples: how many were checked.
        images: image files looked up.
        opened: image files whose first and last bytes were read.
        label_maps: label maps read.
        label_maps_left_to: the step of the user's own that they are left to, '' for none.
        pixels: number of pixels in them of each label that training sees, None for no such maps.
        labels: number of samples of each class of a classification data set, None for no such set.
        boxes: how many there are, None for a data set that is not one for detection.
        degenerate: boxes without area.
        outside: boxes outside of their image.
        file_errors: texts about the annotation file, each of which ends the run.
        file_warnings: texts about it, boxes that the data set dropped included.
        faults: kind of the fault -> (how many, the first few as (index of the sample, offender)).
        remarks: the same of what is warned of.
        notes: warnings in words of their own, made of the counts of all processes together.
        aside: the same of what its number makes a fault or a remark, once all processes are added.
    """

    samples: int = 0
    images: int = 0
    opened: int = 0
    label_maps: int = 0
    label_maps_left_to: str = ''
    pixels: np.ndarray | None = None
    labels: np.ndarray | None = None
    boxes: int | None = None
    degenerate: int = 0
    outside: int = 0
    file_errors: list[str] = field(default_factory=list)
    file_warnings: list[str] = field(default_factory=list)
    faults: Tally = field(default_factory=dict)
    remarks: Tally = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    aside: Tally = field(default_factory=dict)

    def add(self, kind: str, index: int, offender: str) -> None:
        """Count a fault of sample ``index``, -1 for one of the whole data set."""
        count_fault(self.faults, kind, offender, index)

    def warn(self, kind: str, index: int, offender: str) -> None:
        """Count what the run goes on with, of sample ``index`` or, -1, of the whole data set."""
        count_fault(self.remarks, kind, offender, index)

    def put_aside(self, kind: str, index: int, offender: str) -> None:
        """Count what :meth:`settle` decides on."""
        count_fault(self.aside, kind, offender, index)

    def settle(self, kind: str, *, fault: bool, meaning: str) -> None:
        """Make a kind that was put aside a fault or a remark, named ``meaning`` from here on."""
        tally = self.faults if fault else self.remarks
        tally[meaning] = self.aside.pop(kind)

    @classmethod
    def merged(cls, parts: Iterable['Findings']) -> 'Findings':
        """Add up what the processes found; the offenders of the lowest indices are shown."""
        total = cls()
        for part in parts:
            for name in ('samples', 'images', 'opened', 'label_maps', 'degenerate', 'outside'):
                setattr(total, name, getattr(total, name) + getattr(part, name))
            total.label_maps_left_to = total.label_maps_left_to or part.label_maps_left_to
            total.file_errors += part.file_errors
            total.file_warnings += part.file_warnings
            total.pixels = _added(total.pixels, part.pixels)
            total.labels = _added(total.labels, part.labels)
            if part.boxes is not None:
                total.boxes = (total.boxes or 0) + part.boxes
            for name in ('faults', 'remarks', 'aside'):
                add_tally(getattr(total, name), getattr(part, name))
        return total

    def errors(self) -> list[str]:
        """Return a text for each kind of fault, with its count and the first offenders."""
        return [*tally_lines(self.faults), *self.file_errors]

    def warnings(self) -> list[str]:
        """Return a text for each kind of remark, the notes, and one about boxes without a use."""
        counts = {'without area': self.degenerate, 'outside of their image': self.outside}
        bad = [f'{count} {what}' for what, count in counts.items() if count]
        boxes = [f'boxes that cannot be learnt from: {", ".join(bad)}'] if bad else []
        return [*tally_lines(self.remarks), *self.notes, *boxes, *self.file_warnings]

    def summary(self) -> str:
        """Return how much was checked, in one line."""
        parts = [f'{self.samples} samples', f'{self.images} image files looked up']
        if self.opened:
            parts[-1] += f' ({self.opened} opened)'
        if self.boxes is not None:
            parts.append(f'{self.boxes} boxes')
        if self.label_maps:
            parts.append(f'{self.label_maps} label maps read')
        if self.label_maps_left_to:
            parts.append(f'label maps left to {self.label_maps_left_to}')
        return ', '.join(parts)


def _added(counts: np.ndarray | None, more: np.ndarray | None) -> np.ndarray | None:
    if counts is None or more is None:
        return more if counts is None else counts
    return counts + more
