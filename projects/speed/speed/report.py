"""Measurements as a table to read, and as a file to keep."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from mmwave.inspect.timing import Ratio, Timing

from .cases import Result, Row

Column = tuple[str, int, Callable[[Any], str]]
"""Title, width, and a function that formats the cell of what makes a line."""
Record = Mapping[str, object]
"""A line of a CSV file, by column."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How results of one kind are printed.

    Attributes:
        title: above the legend; may be empty.
        legend: explains the columns; its ``{repeats}`` is replaced.
        columns: of the table.
        lines: result -> what its lines are made of, each with the reason for what is missing in it.
    """

    title: str
    legend: str
    columns: Sequence[Column]
    lines: Callable[[Result], Iterable[tuple[Any, str]]]


def table(
    results: Iterable[Result], layout: Callable[[Result], Layout], *, repeats: int
) -> Iterator[str]:
    """Yield the lines of a table, each as soon as its result is there.

    Legend and head are printed again wherever the layout changes.
    """
    last = None
    for result in results:
        shown = layout(result)
        if shown != last:
            last = shown
            if shown.title:
                yield f'\n{shown.title}'
            yield shown.legend.format(repeats=repeats)
            yield _line((title, width) for title, width, _ in shown.columns)
        for item, reason in shown.lines(result):
            yield _line((text(item), width) for _, width, text in shown.columns)
            if reason:
                yield f'# {reason}'
        if result.note:
            yield f'# {result.case.model.name}: {result.note}'


def _line(cells: Iterable[tuple[str, int]]) -> str:
    return '  '.join(text.ljust(width) for text, width in cells).rstrip()


def as_csv(records: Iterable[Record]) -> str:
    """Return the records as CSV with a header: full precision, empty where there is no value."""
    listed = list(records)
    out = StringIO()
    writer = csv.DictWriter(out, fieldnames=list(listed[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(listed)
    return out.getvalue()


def quartile_fields(name: str, ratio: Ratio | None) -> dict[str, float | None]:
    """Return the three columns of a ratio."""
    values = (ratio.low, ratio.median, ratio.high) if ratio else (None, None, None)
    names = (f'{name}_quartile1', f'{name}_median', f'{name}_quartile3')
    return dict(zip(names, values, strict=True))


def ms(time: Timing | None) -> str:
    """Format the median in milliseconds."""
    return f'{1e3 * time.median:.1f}' if time else ''


def number(value: float | None, pattern: str) -> str:
    """Format a number that may be missing."""
    return '' if value is None else format(value, pattern)


def median(ratio: Ratio | None) -> str:
    """Format the median of a ratio."""
    return f'{ratio.median:.2f}' if ratio else ''


def quartiles(ratio: Ratio | None) -> str:
    """Format the quartiles of a ratio."""
    return f'{ratio.low:.2f} - {ratio.high:.2f}' if ratio else ''


# -- Backbones: a line for each form -------------------------------------------------------------


def _speed_up(row: Row) -> str:
    if row.form.problem:
        return 'unequal' if row.form.error is not None else 'failed'
    return median(row.ratio)


def _mb(row: Row, what: str) -> str:
    return f'{getattr(row.form.memory, what) / 1e6:.0f}' if row.form.memory else ''


def _part(row: Row, what: str) -> str:
    """Format the memory relative to the reference's; to the compiled one's for a compiled form."""
    reference = row.compiled if row.form.label.compiled else row.reference
    if not (row.form.memory and reference and reference.memory):
        return ''
    return f'{getattr(row.form.memory, what) / getattr(reference.memory, what):.2f}'


COLUMNS: tuple[Column, ...] = (
    ('model', 14, lambda r: r.case.model.name),
    ('size', 8, lambda r: f'{r.case.size[0]}x{r.case.size[1]}'),
    ('batch', 5, lambda r: str(r.case.batch)),
    ('dtype', 8, lambda r: r.case.dtype),
    ('form', 17, lambda r: r.form.label.name),
    ('layout', 6, lambda r: r.form.label.layout),
    ('run', 8, lambda r: r.form.label.execution),
    ('ms', 8, lambda r: ms(r.form.time)),
    ('speed-up', 8, _speed_up),
    ('quartiles', 11, lambda r: quartiles(r.ratio)),
    ('cpu', 5, lambda r: number(r.cpu_ratio, '.2f')),
    ('compiled', 8, lambda r: median(r.compiled_ratio)),
    ('roofline', 8, lambda r: number(r.share, '.0%')),
    ('error', 7, lambda r: number(r.form.error, '.1e')),
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
roofline: FLOP/s of the peer's matrix products and convolutions, over those of the fastest product
of two matrices of 2048 x 2048 in the same rounds.
error: relative, to the peer in a wider dtype; checked before timing."""
MEMORY_LEGEND = """\
A step is a forward and a backward pass of the backbone, from random gradients of its outputs.
peak: most memory that a step holds at once; saved: what its forward pass keeps for the backward
pass; ratio: over the peer's, of the same run."""


def _forms(result: Result) -> Iterator[tuple[Row, str]]:
    for row in result.rows:
        problem = row.form.problem
        yield row, f'{row.form.label}: {problem}' if problem else ''


LAYOUTS: Mapping[str, Layout] = {
    'inference': Layout(title='inference', legend=LEGEND, columns=COLUMNS, lines=_forms),
    'train': Layout(
        title='train',
        legend=f'{LEGEND}\n{MEMORY_LEGEND}',
        columns=COLUMNS + MEMORY_COLUMNS,
        lines=_forms,
    ),
}
"""Mode -> the table of its backbones."""


def backbone_layout(result: Result) -> Layout:
    """Return the layout for a backbone's result."""
    return LAYOUTS[result.case.mode]


def backbone_records(results: Iterable[Result], machine: str) -> Iterator[Record]:
    """Yield a record for each form: seconds and bytes.

    ``speedup_*`` are over the eager peer, ``compiled_speedup_*`` of compiled forms over the
    compiled peer.
    """
    for row in (row for result in results for row in result.rows):
        case, form, reference, compiled = row.case, row.form, row.reference, row.compiled
        label, time, memory = form.label, form.time, form.memory
        yield {
            'model': case.model.name,
            'mode': case.mode,
            'height': case.size[0],
            'width': case.size[1],
            'batch': case.batch,
            'dtype': case.dtype,
            'role': label.role,
            'form': label.name,
            'layout': label.layout,
            'run': label.execution,
            'peer': str(reference.label) if reference else None,
            **quartile_fields('speedup', row.ratio),
            'cpu_speedup_median': row.cpu_ratio,
            'compiled_peer': str(compiled.label) if compiled else None,
            **quartile_fields('compiled_speedup', row.compiled_ratio),
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


# -- Detectors and segmentors: a line for each model ---------------------------------------------


def shares(result: Result) -> tuple[float, float]:
    """Return the backbone's share of the time of a whole model, in train form and deploy form."""
    whole, backbone = result.rows
    train = Ratio.of(_time(backbone, 'train').wall, _time(whole, 'train').wall)
    deploy = Ratio.of(_time(backbone, 'deploy').wall, _time(whole, 'deploy').wall)
    return train.median, deploy.median


def _time(row: Row, form: str) -> Timing:
    measured = row.form if form == 'deploy' else row.reference
    assert measured is not None
    assert measured.time is not None
    return measured.time


def _error(result: Result, form: str) -> float | None:
    row = result.rows[0]
    measured = row.form if form == 'deploy' else row.reference
    return measured.error if measured else None


def _rate(time: Timing) -> str:
    return f'{1 / time.median:.3g}'


WHOLE_COLUMNS: tuple[Column, ...] = (
    ('size', 8, lambda r: f'{r.case.size[0]}x{r.case.size[1]}'),
    ('dtype', 8, lambda r: r.case.dtype),
    ('train ms', 8, lambda r: ms(_time(r.rows[0], 'train'))),
    ('deploy ms', 9, lambda r: ms(_time(r.rows[0], 'deploy'))),
    ('images/s', 8, lambda r: _rate(_time(r.rows[0], 'train'))),
    ('deploy', 6, lambda r: _rate(_time(r.rows[0], 'deploy'))),
    ('speed-up', 8, lambda r: median(r.rows[0].ratio)),
    ('quartiles', 11, lambda r: quartiles(r.rows[0].ratio)),
    ('backbone ms', 11, lambda r: ms(_time(r.rows[1], 'train'))),
    ('deploy', 7, lambda r: ms(_time(r.rows[1], 'deploy'))),
    ('speed-up', 8, lambda r: median(r.rows[1].ratio)),
    ('share', 5, lambda r: f'{shares(r)[0]:.2f}'),
    ('deploy', 6, lambda r: f'{shares(r)[1]:.2f}'),
    ('error', 7, lambda r: number(_error(r, 'deploy'), '.1e')),
    ("train's", 7, lambda r: number(_error(r, 'train'), '.1e')),
    ('boxes', 5, lambda r: number(r.boxes, 'd')),
)
WHOLE_LEGEND = """\
Medians of {repeats} rounds in which both forms and their backbones take turns in one process.
ms: one image through data preprocessor, network and post-processing, nothing loaded from a disk.
speed-up: train form's time over deploy form's, median and quartiles of the rounds; then the same of
the backbones alone, on the preprocessed image. share: backbone's share of the whole's time.
error: relative, of the raw outputs to the train form in a wider dtype; checked before timing.
bfloat16: autocast, which casts the float32 weights again for every image.
Weights are random, test_cfg is the config's: NMS may see thousands of boxes or none, a mask head
likewise, and a trained model's post-processing takes another time. boxes: what was left."""


def whole_layout(names: Iterable[str]) -> Layout:
    """Return the layout for results of whole models of these names."""
    name: Column = ('model', max(map(len, names)), lambda r: r.case.model.name)
    return Layout(
        title='',
        legend=WHOLE_LEGEND,
        columns=(name, *WHOLE_COLUMNS),
        lines=lambda result: [(result, '')],
    )


def whole_records(results: Iterable[Result], machine: str) -> Iterator[Record]:
    """Yield a record for each whole model: seconds."""
    for result in results:
        case = result.case
        record: dict[str, object] = {
            'model': case.model.name,
            'kind': case.model.task.kind,
            'height': case.size[0],
            'width': case.size[1],
            'dtype': case.dtype,
            'rounds': len(_time(result.rows[0], 'train').wall),
        }
        for part, row in zip(('whole', 'backbone'), result.rows, strict=True):
            record |= quartile_fields(f'{part}_speedup', row.ratio)
            for form in ('train', 'deploy'):
                time = _time(row, form)
                record |= {
                    f'{part}_{form}_wall_median_s': time.median,
                    f'{part}_{form}_wall_iqr_s': time.iqr,
                    f'{part}_{form}_cpu_median_s': time.cpu_median,
                }
        train, deploy = shares(result)
        yield record | {
            'train_images_per_s': 1 / _time(result.rows[0], 'train').median,
            'deploy_images_per_s': 1 / _time(result.rows[0], 'deploy').median,
            'train_backbone_share': train,
            'deploy_backbone_share': deploy,
            'train_error': _error(result, 'train'),
            'deploy_error': _error(result, 'deploy'),
            'boxes': '' if result.boxes is None else result.boxes,
            'machine': machine,
        }
