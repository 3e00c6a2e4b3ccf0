"""Measurements as a table to read, and as a file to keep."""

import csv
from collections.abc import Callable, Iterable, Iterator
from io import StringIO

from .cases import Result, Row
from .timing import Ratio

Column = tuple[str, int, Callable[[Row], str]]


def _ms(row: Row) -> str:
    return f'{1e3 * row.form.time.median:.1f}' if row.form.time else ''


def _number(value: float | None, pattern: str) -> str:
    return '' if value is None else format(value, pattern)


def _speed_up(row: Row) -> str:
    if row.form.problem:
        return 'unequal' if row.form.error is not None else 'failed'
    return _median(row.ratio)


def _median(ratio: Ratio | None) -> str:
    return f'{ratio.median:.2f}' if ratio else ''


def _quartiles(ratio: Ratio | None) -> str:
    return f'{ratio.low:.2f} - {ratio.high:.2f}' if ratio else ''


def _mb(row: Row, what: str) -> str:
    return f'{getattr(row.form.memory, what) / 1e6:.0f}' if row.form.memory else ''


def _part(row: Row, what: str) -> str:
    """Of what the peer holds; of the compiled one for a compiled form."""
    peer = row.compiled if row.form.label.compiled else row.peer
    if not (row.form.memory and peer and peer.memory):
        return ''
    return f'{getattr(row.form.memory, what) / getattr(peer.memory, what):.2f}'


COLUMNS: tuple[Column, ...] = (
    ('model', 14, lambda r: r.case.model),
    ('size', 8, lambda r: f'{r.case.size[0]}x{r.case.size[1]}'),
    ('batch', 5, lambda r: str(r.case.batch)),
    ('dtype', 8, lambda r: r.case.dtype),
    ('form', 10, lambda r: r.form.label.name),
    ('layout', 6, lambda r: r.form.label.layout),
    ('run', 8, lambda r: r.form.label.execution),
    ('ms', 8, _ms),
    ('speed-up', 8, _speed_up),
    ('quartiles', 11, lambda r: _quartiles(r.ratio)),
    ('cpu', 5, lambda r: _number(r.cpu_ratio, '.2f')),
    ('compiled', 8, lambda r: _median(r.compiled_ratio)),
    ('roofline', 8, lambda r: _number(r.share, '.0%')),
    ('error', 7, lambda r: _number(r.form.error, '.1e')),
)
MEMORY_COLUMNS: tuple[Column, ...] = (
    ('peak MB', 7, lambda r: _mb(r, 'peak')),
    ('ratio', 5, lambda r: _part(r, 'peak')),
    ('saved MB', 8, lambda r: _mb(r, 'saved')),
    ('ratio', 5, lambda r: _part(r, 'saved')),
)
LEGEND = """\
Medians of {repeats} rounds in which all forms of a case take turns in one process; random weights.
speed-up: over the published structure (or timm's) with the same weights, eager, in the memory
layout that is faster for it; median and quartiles of the rounds; cpu: of processor time;
compiled: speed-up of a compiled form over the compiled peer in its faster layout.
roofline: multiply-adds a second of the peer's function, over those of the fastest product of
two matrices of 2048 x 2048 in the same rounds.
error: relative, to the peer in a wider dtype; checked before timing."""
MEMORY_LEGEND = """\
A step is a forward and a backward pass of the backbone, from random gradients of its outputs.
peak: most memory that a step holds at once; saved: what its forward pass keeps; ratio: over the
peer's, of the same run."""


def table(results: Iterable[Result], *, repeats: int) -> Iterator[str]:
    """Lines of one table for every run of results of one mode, each as soon as its case is done."""
    mode = None
    for result in results:
        training = result.case.mode == 'train'
        columns = COLUMNS + (MEMORY_COLUMNS if training else ())
        if result.case.mode != mode:
            mode = result.case.mode
            yield f'\n{mode}'
            yield LEGEND.format(repeats=repeats)
            if training:
                yield MEMORY_LEGEND
            yield '  '.join(title.ljust(width) for title, width, _ in columns).rstrip()
        for row in result.rows:
            yield '  '.join(text(row).ljust(width) for _, width, text in columns).rstrip()
            if row.form.problem:
                yield f'# {row.form.label}: {row.form.problem}'
        if result.note:
            yield f'# {result.case.model}: {result.note}'


def records(results: Iterable[Result], machine: str) -> str:
    """The rows as CSV with a header: full precision, seconds and bytes; empty where there is none.

    ``speedup_*`` are over the eager peer, ``compiled_speedup_*`` of compiled forms over the
    compiled peer.
    """
    listed = [_record(row, machine) for result in results for row in result.rows]
    out = StringIO()
    writer = csv.DictWriter(out, fieldnames=list(listed[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(listed)
    return out.getvalue()


def _record(row: Row, machine: str) -> dict[str, object]:
    case, form = row.case, row.form
    label, time, memory = form.label, form.time, form.memory
    return {
        'model': case.model,
        'mode': case.mode,
        'height': case.size[0],
        'width': case.size[1],
        'batch': case.batch,
        'dtype': case.dtype,
        'role': label.role,
        'form': label.name,
        'layout': label.layout,
        'run': label.execution,
        'peer': str(row.peer.label) if row.peer else None,
        **_quartile_fields('speedup', row.ratio),
        'cpu_speedup_median': row.cpu_ratio,
        'compiled_peer': str(row.compiled.label) if row.compiled else None,
        **_quartile_fields('compiled_speedup', row.compiled_ratio),
        'rounds': len(time.wall) if time else None,
        'wall_median_s': time and time.median,
        'wall_iqr_s': time and time.iqr,
        'cpu_median_s': time and time.cpu_median,
        'macs': form.macs,
        'gemm_flops': row.gemm,
        'roofline_share': row.share,
        'error': form.error,
        'peak_bytes': memory and memory.peak,
        'saved_bytes': memory and memory.saved,
        'problem': form.problem,
        'machine': machine,
    }


def _quartile_fields(name: str, ratio: Ratio | None) -> dict[str, float | None]:
    values = (ratio.low, ratio.median, ratio.high) if ratio else (None, None, None)
    names = (f'{name}_quartile1', f'{name}_median', f'{name}_quartile3')
    return dict(zip(names, values, strict=True))
