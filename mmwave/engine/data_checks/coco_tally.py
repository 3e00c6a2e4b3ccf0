"""Counts of the faults of a COCO file, by what they end."""

from enum import Enum, auto

from .tally import Tally, count_fault, tally_lines


class Level(Enum):
    """What a kind of fault means."""

    BUILD = auto()  # the data set cannot be built
    MASKS = auto()  # masks cannot be read
    METRIC = auto()  # CocoMetric cannot evaluate
    SEGM = auto()  # CocoMetric cannot evaluate masks
    FILLED = auto()  # CocoMetric lacks it, a harmless value is filled in
    REMARK = auto()  # training goes on, most likely not as meant
    MASK_REMARK = auto()  # the same of masks
    DROPPED = auto()  # boxes without a use


class CocoTally:
    """Count and first offenders of each kind of fault at each level."""

    def __init__(self) -> None:
        self._levels: dict[Level, Tally] = {level: {} for level in Level}

    def add(self, level: Level, kind: str, offender: str) -> None:
        """Count one more of a kind; the first few are kept by name."""
        count_fault(self._levels[level], kind, offender)

    def lines(self, *levels: Level) -> list[str]:
        """Return a text for each kind of these levels."""
        return [line for level in levels for line in tally_lines(self._levels[level])]
