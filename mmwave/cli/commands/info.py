"""Parameters, multiply-accumulates, time and memory of the model that a config builds."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmwave.cli.options import add_config, add_settings, add_verbose

if TYPE_CHECKING:
    from mmwave.inspect.model_info import ModelInfo, SizeCost

EXAMPLES = (
    'wavemlp-t_in1k --size 224x224 384x384',
    'wavemlp-t_mask-rcnn_1x_coco --batch 2 --csv cost.csv',
)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r'(\d+)(?:x(\d+))?', text)
    if found is None or not int(found[1]):
        raise argparse.ArgumentTypeError(f'{text!r} is no size: expected HEIGHTxWIDTH, or a side')
    return int(found[1]), int(found[2] or found[1])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        '--size',
        nargs='+',
        type=_size,
        default=(),
        metavar='HEIGHTxWIDTH',
        help="of images in pixels (default: that of the config's test images)",
    )
    parser.add_argument('--batch', type=int, default=1, metavar='N', help='images at a time')
    parser.add_argument(
        '--device', default=None, help='cpu, cuda:0 (default: a GPU if there is one)'
    )
    parser.add_argument(
        '--repeats', type=int, default=7, metavar='N', help='rounds that are timed (default: 7)'
    )
    parser.add_argument('--no-timing', action='store_true', help='count alone, which needs no time')
    parser.add_argument('--csv', metavar='FILE.csv', help='also write a row for each size and form')
    add_settings(parser)
    add_verbose(parser)


def main(args: argparse.Namespace) -> None:
    from mmwave.apis.outputs import check_output_file

    if args.csv:
        check_output_file('--csv', args.csv)
    import torch

    from mmwave.inspect import info, machine

    device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    found = info(
        args.config,
        sizes=args.size,
        batch=args.batch,
        device=device,
        repeats=args.repeats,
        timed=not args.no_timing,
        cfg_options=args.cfg_options,
        verbose=args.verbose,
    )
    show(found, None if args.no_timing else machine(device))
    if args.csv:
        write_csv(Path(args.csv), Path(args.config).stem, found)
        print(f'wrote {args.csv}')


def show(found: ModelInfo, where: str | None) -> None:
    """Print the tables.

    Args:
        found: of :func:`mmwave.inspect.info`.
        where: the machine, None where nothing was timed.
    """
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table('', 'parameters', *map(_named, found.sizes), box=SIMPLE)
    console.print(f'{found.name}: parameters, and multiply-accumulates of one image')
    for column in table.columns[1:]:
        column.justify = 'right'
    for part, params in found.params.items():
        if params:
            macs = [_giga(size.macs[part]) if part in size.macs else '' for size in found.sizes]
            table.add_row(part, f'{params / 1e6:.2f} M', *macs)
    total = sum(found.params.values())
    sums = [_giga(sum(size.macs.values())) for size in found.sizes]
    table.add_section()
    table.add_row('all', f'{total / 1e6:.2f} M', *sums)
    if any(size.filling is not None for size in found.sizes):
        table.add_row('windows filled', '', *(f'{size.filling:.0%}' for size in found.sizes))
    console.print(table)
    if where is not None:
        console.print(f'{" + ".join(found.counted)}, {found.batch} at a time')
        console.print(_times(found, Table(box=SIMPLE)))
    lines = []
    if found.left_out:
        lines.append(
            f'{", ".join(found.left_out)}: not in multiply-accumulates, time and memory, since the '
            'work depends on the image'
        )
    if found.no_deploy:
        lines.append(f'no deploy form: {found.no_deploy}')
    if where is not None:
        lines.append(where)
    for line in lines:
        console.print(line, soft_wrap=True)


def _times(found: ModelInfo, table: Any) -> Any:
    for name in ('size', 'form', 'ms', 'images/s', 'memory', 'faster'):
        table.add_column(name, justify='left' if name in ('size', 'form') else 'right')
    for size in found.sizes:
        for form, cost in size.forms.items():
            gain = f'{size.gain.median:.2f}x' if size.gain and form == 'deploy' else ''
            table.add_row(
                _named(size),
                form,
                f'{1e3 * cost.time.median:.1f}',
                f'{found.batch / cost.time.median:.1f}',
                f'{cost.peak / 2**20:.0f} MiB',
                gain,
            )
    return table


def rows(config: str, found: ModelInfo) -> list[dict[str, Any]]:
    """Return a row for each size and form, or for each size where nothing was timed."""
    made = []
    for size in found.sizes:
        row = dict(
            config=config,
            height=size.size[0],
            width=size.size[1],
            params=sum(found.params.values()),
            macs=sum(size.macs.values()),
            window_filling='' if size.filling is None else round(size.filling, 4),
            batch=found.batch,
        )
        forms: dict[str, dict[str, Any]] = {
            form: dict(seconds=cost.time.median, peak_bytes=cost.peak)
            for form, cost in size.forms.items()
        }
        for form, cost in (forms or {'': dict(seconds='', peak_bytes='')}).items():
            made.append({**row, 'form': form, **cost})
    return made


def write_csv(path: Path, config: str, found: ModelInfo) -> None:
    """Write :func:`rows`."""
    import csv

    made = rows(config, found)
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, fieldnames=list(made[0]))
        writer.writeheader()
        writer.writerows(made)


def _named(size: SizeCost) -> str:
    return f'{size.size[0]}x{size.size[1]}'


def _giga(macs: int) -> str:
    return f'{macs / 1e9:.2f} G' if macs >= 1e7 else f'{macs / 1e6:.2f} M'
