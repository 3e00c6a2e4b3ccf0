"""Measurements as a table to read, and as a file to keep."""

import csv
from collections.abc import Callable, Iterable, Iterator
from io import StringIO

from .benchmark import Measured, Row
from .timing import Timing

Column = tuple[str, int, Callable[[Row], str]]


def _ms(time: Timing) -> str:
    return f'{1e3 * time.median:.1f}'


def _mb(form: Measured, what: str) -> str:
    return f'{getattr(form.memory, what) / 1e6:.0f}'


def _share(row: Row, what: str) -> str:
    return f'{getattr(row.ours.memory, what) / getattr(row.peer.memory, what):.2f}'


COLUMNS: tuple[Column, ...] = (
    ('model', 14, lambda r: r.case.model),
    ('size', 7, lambda r: f'{r.case.size[0]}x{r.case.size[1]}'),
    ('batch', 5, lambda r: str(r.case.batch)),
    ('dtype', 8, lambda r: r.case.dtype),
    ('form', 10, lambda r: r.ours.form),
    ('ours ms', 8, lambda r: _ms(r.ours.time)),
    ('peer ms', 8, lambda r: _ms(r.peer.time)),
    ('layout', 6, lambda r: r.peer.form),
    ('speed-up', 8, lambda r: f'{r.ratio.median:.2f}'),
    ('quartiles', 11, lambda r: f'{r.ratio.low:.2f} - {r.ratio.high:.2f}'),
    ('cpu', 5, lambda r: f'{r.cpu_ratio:.2f}'),
    ('error', 7, lambda r: f'{r.ours.error:.1e}'),
    ("peer's", 7, lambda r: f'{r.peer.error:.1e}'),
)
MEMORY_COLUMNS: tuple[Column, ...] = (
    ('peak MB', 7, lambda r: _mb(r.ours, 'peak')),
    ("peer's", 6, lambda r: _mb(r.peer, 'peak')),
    ('ratio', 5, lambda r: _share(r, 'peak')),
    ('saved MB', 8, lambda r: _mb(r.ours, 'saved')),
    ("peer's", 6, lambda r: _mb(r.peer, 'saved')),
    ('ratio', 5, lambda r: _share(r, 'saved')),
)
LEGEND = """\
Medians of {repeats} rounds in which all forms take turns in one process; weights are random.
peer: the published structure with the same weights, in the memory layout that is faster for it.
speed-up: peer's time over ours, median and quartiles of the rounds; cpu: of their processor time.
error: relative, ours and the peer's own, to the peer in a wider dtype; checked before timing."""
MEMORY_LEGEND = """\
A step is a forward and a backward pass of the backbone, from random gradients of its outputs.
peak: most memory that a step holds at once; saved: what its forward pass keeps; ratio: ours over
the peer's."""


def table(rows: Iterable[Row], *, repeats: int) -> Iterator[str]:
    """Lines of one table for every run of rows of one mode, each as soon as its row is there."""
    mode = None
    for row in rows:
        columns = COLUMNS + (MEMORY_COLUMNS if row.ours.memory else ())
        if row.case.mode != mode:
            mode = row.case.mode
            yield f'\n{mode}'
            yield LEGEND.format(repeats=repeats)
            if row.ours.memory:
                yield MEMORY_LEGEND
            yield '  '.join(title.ljust(width) for title, width, _ in columns).rstrip()
        yield '  '.join(text(row).ljust(width) for _, width, text in columns).rstrip()


def records(rows: Iterable[Row], machine: str) -> str:
    """The rows as CSV with a header: full precision, seconds and bytes."""
    listed = [_record(row, machine) for row in rows]
    out = StringIO()
    writer = csv.DictWriter(out, fieldnames=list(listed[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(listed)
    return out.getvalue()


def _record(row: Row, machine: str) -> dict[str, object]:
    case, ratio = row.case, row.ratio
    record: dict[str, object] = {
        'model': case.model,
        'mode': case.mode,
        'height': case.size[0],
        'width': case.size[1],
        'batch': case.batch,
        'dtype': case.dtype,
        'form': row.ours.form,
        'peer_layout': row.peer.form,
        'speedup_quartile1': ratio.low,
        'speedup_median': ratio.median,
        'speedup_quartile3': ratio.high,
        'rounds': len(row.ours.time.wall),
    }
    for whose, form in (('ours', row.ours), ('peer', row.peer)):
        memory = form.memory
        record |= {
            f'{whose}_wall_median_s': form.time.median,
            f'{whose}_wall_iqr_s': form.time.iqr,
            f'{whose}_cpu_median_s': form.time.cpu_median,
            f'{whose}_error': form.error,
            f'{whose}_peak_bytes': memory.peak if memory else '',
            f'{whose}_saved_bytes': memory.saved if memory else '',
        }
    return record | {'machine': machine}
