"""Counting faults by their kind, with the first few offenders of each."""

Tally = dict[str, tuple[int, list[tuple[int, str]]]]
"""Kind of the fault -> (how many, the first few as (index of the sample, offender))."""

SHOWN = 5


def count_fault(tally: Tally, kind: str, offender: str, index: int = -1) -> None:
    """Count a fault of sample ``index``, -1 for one of the whole data set."""
    count, shown = tally.get(kind, (0, []))
    if len(shown) < SHOWN:
        shown.append((index, offender))
    tally[kind] = (count + 1, shown)


def add_tally(tally: Tally, more: Tally) -> None:
    """Add up two tallies; the offenders of the lowest indices are kept."""
    for kind, (count, shown) in more.items():
        known, before = tally.get(kind, (0, []))
        tally[kind] = (known + count, sorted([*before, *shown])[:SHOWN])


def tally_lines(tally: Tally) -> list[str]:
    """Return a text for each kind of fault, with its count and the first offenders."""
    lines = []
    for kind, (count, shown) in tally.items():
        more = f', … and {count - len(shown)} more' if count > len(shown) else ''
        lines.append(f'{count} {kind}: ' + ', '.join(text for _, text in shown) + more)
    return lines
