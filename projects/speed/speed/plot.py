"""Speed as a plot and as tables, rendered from the benchmarks' CSV files."""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmwave.apis.usage import libraries_named
from mmwave.errors import UserError

from .forms import NO_KERNEL

Record = dict[str, str]

PANELS = (('float32', '#0072b2'), ('bfloat16', '#e69f00'))
"""Dtypes and the colours of their bars, which colour-blind readers can distinguish."""
OURS = {'inference': 'deploy', 'train': 'lean'}
"""Mode -> the form of ours that users run."""
COLUMNS = (
    {'speedup_median', 'role', 'run', 'machine'},
    {'whole_speedup_median', 'backbone_speedup_median', 'machine'},
)
"""Columns by which a file of ``benchmark.py`` and one of ``benchmark_models.py`` are recognised."""
MARKERS = re.compile(r'(?<=<!-- speed:begin -->\n).*?(?=<!-- speed:end -->)', re.DOTALL)


def read(paths: Iterable[Path]) -> list[Record]:
    """Return the rows of all files.

    Raises:
        UserError: naming a file that is not one of the benchmark's.
    """
    rows: list[Record] = []
    for path in paths:
        try:
            found = list(csv.DictReader(path.read_text(encoding='utf-8').splitlines()))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f'{path} cannot be read: {error}') from None
        if not found or not any(columns <= found[0].keys() for columns in COLUMNS):
            raise UserError(
                f'{path} is no file that benchmark.py or benchmark_models.py has written'
            )
        rows += found
    return rows


def select(rows: Iterable[Record], **fields: str) -> list[Record]:
    """Return the rows with these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in fields.items())]


def draw(paths: Iterable[Path], out: Path) -> None:
    """Draw the speed-up of our deploy forms over their peers as bars, a panel for each image size.

    Bars start at the line at 1, so that those of slower forms point down. Plain bars are eager over
    eager, hatched ones compiled over compiled; whiskers are quartiles.

    Raises:
        UserError: where the files hold no such speed-up, or matplotlib is not installed.
    """
    with libraries_named():
        from matplotlib.figure import Figure

    rows = select(read(paths), mode='inference', form=OURS['inference'])
    rows = [row for row in rows if row[_ratio(row)]]
    sizes = list(dict.fromkeys(_images(row) for row in rows))
    if not sizes:
        raise UserError('nothing to draw: the files hold no speed-up of a deploy form')
    figure = Figure(figsize=(11, 0.7 + 2.9 * len(sizes)), layout='constrained')
    panels = figure.subplots(len(sizes), squeeze=False, sharey=True)[:, 0]
    for axes, size in zip(panels, sizes, strict=True):
        _panel(axes, [row for row in rows if _images(row) == size])
        axes.set_title(f'{size} pixels', loc='left', fontsize=11)
    machines = dict.fromkeys(row['machine'] for row in rows)
    figure.supxlabel('\n'.join(machines), fontsize=8, color='0.35')
    figure.savefig(out, dpi=150)


def _panel(axes: Any, rows: Sequence[Record]) -> None:
    from matplotlib.patches import Patch

    models, handles = list(dict.fromkeys(row['model'] for row in rows)), []
    kinds = [
        (dtype, run, colour)
        for run in ('eager', 'compiled')
        for dtype, colour in PANELS
        if select(rows, dtype=dtype, run=run)
    ]
    width = 0.84 / len(kinds)
    for k, (dtype, run, colour) in enumerate(kinds):
        style: dict[str, Any] = dict(
            facecolor=colour,
            alpha=1.0 if run == 'eager' else 0.55,
            hatch='' if run == 'eager' else '///',
            edgecolor='white',
        )
        handles.append(Patch(label=f'{dtype}, {run}', **style))
        for i, model in enumerate(models):
            # Of files that repeat a measurement, the last.
            for row in select(rows, dtype=dtype, run=run, model=model)[-1:]:
                _bar(axes, i + (k - (len(kinds) - 1) / 2) * width, 0.92 * width, row, style)
    axes.axhline(1, color='black', lw=1)
    axes.set_xticks(range(len(models)), models, rotation=20 if len(models) > 6 else 0, fontsize=9)
    axes.set_ylabel('speed-up over the reference')
    axes.set_xlim(-0.6, max(len(models), 6) - 0.4)
    axes.margins(y=0.15)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(
        handles=handles,
        frameon=False,
        fontsize=8,
        ncols=len(kinds),
        loc='lower right',
        bbox_to_anchor=(1, 1),
    )


def _bar(axes: Any, x: float, width: float, row: Record, style: dict[str, Any]) -> None:
    """Draw a bar from the line at 1 to the speed-up, which is written at its end."""
    name = _ratio(row)
    ratio = float(row[name])
    low, high = (float(row[name.replace('median', f'quartile{q}')]) for q in (1, 3))
    whiskers = [[max(ratio - low, 0)], [max(high - ratio, 0)]]
    axes.bar(*(x, ratio - 1, width, 1), yerr=whiskers, error_kw=dict(lw=0.8, ecolor='0.3'), **style)
    gain = ratio >= 1
    axes.annotate(
        f'{ratio:.2f}',
        (x, high if gain else low),
        xytext=(0, 2 if gain else -2),
        textcoords='offset points',
        ha='center',
        va='bottom' if gain else 'top',
        fontsize=8,
        color='black' if gain else '#c1121f',
    )


def markdown(paths: Iterable[Path]) -> str:
    """Return tables of our forms beside the reference, losses included, for each machine."""
    rows = read(paths)
    parts = []
    for machine in dict.fromkeys(row['machine'] for row in rows):
        of = select(rows, machine=machine)
        parts.append(f'Measured on {machine}.')
        for title, table in (
            ('Inference', _inference(select(of, mode='inference'))),
            ('Training step (forward and backward)', _training(select(of, mode='train'))),
            (
                'Whole models, deploy form over train form',
                _whole([row for row in of if 'whole_speedup_median' in row]),
            ),
            ('Other models, for comparison', _contenders(select(of, role='contender'))),
        ):
            if len(table) > 2:
                parts += [f'**{title}**', '\n'.join(table)]
    return '\n\n'.join(parts)


def _inference(rows: list[Record]) -> list[str]:
    table = _head(
        *('model', 'images', 'dtype', 'run', 'reference', 'deploy form'),
        *('speed-up', 'without kernels', 'in train form', 'share of peak GEMM'),
    )
    for row in _latest(select(rows, role='ours', form=OURS['inference'])):
        same = _same_case(rows, row)
        others = (select(same, form=form, run=row['run']) for form in (NO_KERNEL, 'train form'))
        table.append(
            _line(
                *(row['model'], _images(row), row['dtype'], row['run'], _peer_time(same, row)),
                *(_milliseconds(row), _gain(row)),
                *(_gain(other[-1]) if other else '–' for other in others),
                f'{100 * float(row["roofline_share"]):.0f} %' if row['roofline_share'] else '–',
            )
        )
    return table


def _training(rows: list[Record]) -> list[str]:
    table = _head(
        *('model', 'images', 'dtype', 'run', 'reference', 'mmwave', 'speed-up'),
        *('saved activations', 'of the reference', 'peak, of the reference'),
        *('with `with_cp`: speed-up', 'peak, of the reference'),
    )
    for row in _latest(select(rows, role='ours', form=OURS['train'])):
        same = _same_case(rows, row)
        peer, again = _peer(same, row), select(same, form='with_cp', run=row['run'])
        table.append(
            _line(
                *(row['model'], _images(row), row['dtype'], row['run'], _peer_time(same, row)),
                *(_milliseconds(row), _gain(row), _megabytes(row)),
                *(_part(row, peer, 'saved_bytes'), _part(row, peer, 'peak_bytes')),
                _gain(again[-1]) if again else '–',
                _part(again[-1], peer, 'peak_bytes') if again else '–',
            )
        )
    return table


def _whole(rows: list[Record]) -> list[str]:
    table = _head(
        *('model', 'one image of', 'dtype', 'train form', 'deploy form', 'speed-up'),
        *('backbone alone', 'speed-up', 'backbone, share of the time'),
    )
    for row in rows:
        whole, backbone = (
            [1e3 * float(row[f'{part}_{form}_wall_median_s']) for form in ('train', 'deploy')]
            for part in ('whole', 'backbone')
        )
        table.append(
            _line(
                *(row['model'], f'{row["height"]} × {row["width"]}', row['dtype']),
                *(f'{time:.0f} ms' for time in whole),
                f'**{float(row["whole_speedup_median"]):.2f} ×**',
                f'{backbone[0]:.0f} to {backbone[1]:.0f} ms',
                f'**{float(row["backbone_speedup_median"]):.2f} ×**',
                f'{100 * float(row["train_backbone_share"]):.0f} %',
            )
        )
    return table


def _contenders(rows: list[Record]) -> list[str]:
    """Show each at its fastest: they are measured beside several of ours, in two layouts."""
    table = _head('model', 'images', 'dtype', 'mode', 'run', 'time')
    fastest: dict[tuple[str, ...], Record] = {}
    for row in (row for row in rows if row['wall_median_s']):
        key = (row['form'], _images(row), row['dtype'], row['mode'], row['run'])
        best = fastest.get(key)
        if best is None or float(row['wall_median_s']) < float(best['wall_median_s']):
            fastest[key] = row
    return table + [_line(*key, _milliseconds(row)) for key, row in fastest.items()]


def replace_table(text: str, table: str) -> str:
    """Return ``text`` with ``table`` between its two markers.

    Raises:
        UserError: where the markers are not there once.
    """
    if len(MARKERS.findall(text)) != 1:
        raise UserError('expected one pair of lines <!-- speed:begin --> and <!-- speed:end -->')
    return MARKERS.sub(lambda _: f'{table}\n', text)


def _ratio(row: Record) -> str:
    """Return the column of eager over eager, or compiled over compiled."""
    return 'compiled_speedup_median' if row['run'] == 'compiled' else 'speedup_median'


def _images(row: Record) -> str:
    return f'{row["batch"]} of {row["height"]} × {row["width"]}'


def _case(row: Record) -> tuple[str, ...]:
    return tuple(row[f] for f in ('model', 'mode', 'height', 'width', 'batch', 'dtype'))


def _same_case(rows: list[Record], row: Record) -> list[Record]:
    return [other for other in rows if _case(other) == _case(row)]


def _latest(rows: list[Record]) -> Iterable[Record]:
    """Return one row for each case and run: of files that repeat a measurement, the last."""
    return {(*_case(row), row['run']): row for row in rows}.values()


def _peer(rows: list[Record], row: Record) -> Record | None:
    """Return the peer that a row is compared with: eager or compiled like it."""
    wanted = row['compiled_peer' if row['run'] == 'compiled' else 'peer'].removesuffix(' compiled')
    peers = select(rows, role='peer', run=row['run'])
    return next((p for p in peers[::-1] if f'{p["form"]} {p["layout"]}' == wanted), None)


def _peer_time(rows: list[Record], row: Record) -> str:
    peer = _peer(rows, row)
    if peer is None:
        return 'size not accepted'
    return f'{_milliseconds(peer)} ({peer["form"]}, {peer["layout"]})'


def _gain(row: Record) -> str:
    if row['problem']:
        return 'unequal' if row['error'] else 'failed'
    value = row[_ratio(row)]
    return f'**{float(value):.2f} ×**' if value else '–'


def _milliseconds(row: Record) -> str:
    return f'{1e3 * float(row["wall_median_s"]):.0f} ms' if row['wall_median_s'] else '–'


def _megabytes(row: Record) -> str:
    return f'{float(row["saved_bytes"]) / 1e6:.0f} MB' if row['saved_bytes'] else '–'


def _part(row: Record, peer: Record | None, what: str) -> str:
    if peer is None or not row[what] or not peer[what]:
        return '–'
    return f'{float(row[what]) / float(peer[what]):.2f} ×'


def _head(*titles: str) -> list[str]:
    return [_line(*titles), '|' + '---|' * len(titles)]


def _line(*cells: str) -> str:
    return f'| {" | ".join(cells)} |'
