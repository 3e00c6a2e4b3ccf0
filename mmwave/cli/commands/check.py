"""Check a config and its data: files, labels, classes and what of them the model is built for."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mmwave.cli.options import add_config, add_settings, add_verbose

if TYPE_CHECKING:
    from mmwave.apis.checking import CheckReport

EXAMPLES = (
    'my.py',
    'wavemlp-t_retinanet_1x_coco --all --splits val --sheets pictures',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        '--splits',
        nargs='+',
        choices=('train', 'val', 'test'),
        default=('train', 'val', 'test'),
        help='the data to look at (default: all)',
    )
    parser.add_argument('--all', action='store_true', help='look at all files, not at a sample')
    parser.add_argument(
        '--open-images',
        action='store_true',
        help='decode every image, which takes as long as to load an epoch',
    )
    parser.add_argument(
        '--sheets',
        metavar='FOLDER',
        help="pictures of labelled images (default: check in the config's work folder)",
    )
    add_settings(parser)
    add_verbose(parser)


def main(args: argparse.Namespace) -> int:
    from pathlib import Path

    from mmwave import apis
    from mmwave.apis.outputs import check_output_folder

    folder = args.sheets or f'work_dirs/{Path(args.config).stem}/check'
    check_output_folder('--sheets', folder)
    report = apis.check(
        args.config,
        splits=args.splits,
        all_files=args.all,
        open_images=args.open_images,
        sheets=folder,
        cfg_options=args.cfg_options,
        verbose=args.verbose,
    )
    show(report)
    return 0 if report.ok else 1


def show(report: CheckReport) -> None:
    """Print the tables, warnings, problems, and a last line that says OK or not."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if report.data:
        table = Table('', 'data', 'samples', 'files', 'boxes', 'label maps', box=SIMPLE)
        table.columns[1].overflow = 'fold'  # a path is to be read whole
        for data in report.data:
            found = data.found
            files = f'{found.images} there, {found.opened} opened' if found.images else ''
            boxes = '' if found.boxes is None else str(found.boxes)
            maps = str(found.label_maps or '')
            table.add_row(data.split, data.name, str(found.samples), files, boxes, maps)
        console.print(table)
    for data in report.data:
        if data.shares:
            console.print(f'{data.split}: {data.shares}', soft_wrap=True, markup=False)
    lines = [f'warning: {line}' for line in report.warnings]
    lines += [f'warning: {data.split}: {line}' for data in report.data for line in data.warnings]
    problems = [*report.problems]
    problems += [f'{data.split}: {line}' for data in report.data for line in data.problems]
    for line in [*lines, *(f'error: {line}' for line in problems)]:
        console.print(line, soft_wrap=True, markup=False)
    for path in report.sheets:
        console.print(f'labelled images: {path}', soft_wrap=True, markup=False)
    if report.ok:
        warned = f', {len(lines)} warnings' if lines else ''
        console.print(f'OK: the config and {len(report.data)} data sets fit{warned}', markup=False)
    else:
        console.print(f'{len(problems)} errors, {len(lines)} warnings', markup=False)
