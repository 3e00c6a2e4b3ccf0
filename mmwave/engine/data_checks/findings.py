"""The tally of faults in one data set, over samples and processes, and its messages."""

from collections.abc import Iterable
from dataclasses import dataclass, field

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
        label_maps: label maps read.
        boxes: how many there are, None for a data set that is not one for detection.
        degenerate: boxes without area.
        outside: boxes outside of their image.
        faults: kind of the fault -> (how many, the first few as (index of the sample, offender)).
        remarks: the same of what is warned of.
    """

    samples: int = 0
    images: int = 0
    label_maps: int = 0
    boxes: int | None = None
    degenerate: int = 0
    outside: int = 0
    faults: Tally = field(default_factory=dict)
    remarks: Tally = field(default_factory=dict)

    def add(self, kind: str, index: int, offender: str) -> None:
        """Count a fault of sample ``index``, -1 for one of the whole data set."""
        count_fault(self.faults, kind, offender, index)

    def warn(self, kind: str, index: int, offender: str) -> None:
        """Count what the run goes on with, of sample ``index`` or, -1, of the whole data set."""
        count_fault(self.remarks, kind, offender, index)

    @classmethod
    def merged(cls, parts: Iterable['Findings']) -> 'Findings':
        """Add up what the processes found; the offenders of the lowest indices are shown."""
        total = cls()
        for part in parts:
            for name in ('samples', 'images', 'label_maps', 'degenerate', 'outside'):
                setattr(total, name, getattr(total, name) + getattr(part, name))
            if part.boxes is not None:
                total.boxes = (total.boxes or 0) + part.boxes
            add_tally(total.faults, part.faults)
            add_tally(total.remarks, part.remarks)
        return total

    def errors(self) -> list[str]:
        """Return a text for each kind of fault, with its count and the first offenders."""
        return tally_lines(self.faults)

    def warnings(self) -> list[str]:
        """Return a text for each kind of remark, and one about boxes without a use."""
        counts = {'without area': self.degenerate, 'outside of their image': self.outside}
        bad = [f'{count} {what}' for what, count in counts.items() if count]
        boxes = [f'boxes that cannot be learnt from: {", ".join(bad)}'] if bad else []
        return [*tally_lines(self.remarks), *boxes]

    def summary(self) -> str:
        """Return how much was checked, in one line."""
        parts = [f'{self.samples} samples', f'{self.images} image files looked up']
        if self.boxes is not None:
            parts.append(f'{self.boxes} boxes')
        if self.label_maps:
            parts.append(f'{self.label_maps} label maps read')
        return ', '.join(parts)
