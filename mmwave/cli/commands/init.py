"""Write a config for your own data over a shipped one, with every place set.

Boxes and masks in COCO files for a detector, label maps for a segmentor, a folder of images a class
for a classifier; each for training and for validation, with a comma between them.
"""

from __future__ import annotations

import argparse
import shlex
from typing import TYPE_CHECKING

from mmwave import apis
from mmwave.errors import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from mmwave.apis.own_data.config import InitReport

EXAMPLES = (
    'wavemlp-t_retinanet_1x_coco --coco train.json,val.json --images train,val',
    'gmlp-s16_in1k --folders flowers/train,flowers/val --epochs 30 -o flowers.py',
)
_MOST = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('base', help='a shipped config by its name, or the path of a file')
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument('--coco', metavar='A.json,B.json', help='COCO files, for a detector')
    data.add_argument('--masks', metavar='A,B', help='folders of label maps, for a segmentor')
    data.add_argument('--folders', metavar='A,B', help='folders of class folders, for a classifier')
    parser.add_argument('--images', metavar='A,B', help='folders of images, for --coco and --masks')
    parser.add_argument(
        '--classes', metavar='FILE', help='names of classes, one a line: NAME, or NAME R G B'
    )
    parser.add_argument(
        '--weights',
        metavar='FILE',
        help="to start from, 'none' for random ones (default: those that BASE names)",
    )
    parser.add_argument('--batch', type=int, metavar='N', help='images a step on one GPU')
    parser.add_argument('--epochs', type=int, metavar='N', help='length of the training')
    parser.add_argument('-o', '--out', default='my.py', help='file to write (default: my.py)')
    parser.add_argument('--force', action='store_true', help='replace the file where it exists')


def main(args: argparse.Namespace) -> None:
    report = apis.init_config(
        args.base,
        args.out,
        coco=args.coco,
        masks=args.masks,
        folders=args.folders,
        images=args.images,
        classes=args.classes,
        weights=args.weights,
        batch=args.batch,
        epochs=args.epochs,
        force=args.force,
    )
    show(report)


def show(report: InitReport) -> None:
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(_table(report))
    data, plan = report.data, report.plan
    lines = [
        f'images    train {data.train.images}, {report.sizes[0]}; '
        f'val {data.val.images}, {report.sizes[1]} (width x height)',
        f'training  {_length(report)}; learning rate {plan.rate:.3g}'
        + (f' = {plan.rule}' if plan.rule else ''),
        *(f'warning: {line}' for line in report.warnings),
        f'wrote {report.path}: {report.title} for {data.named}; next',
        *(f'  mmwave {word} {shlex.quote(report.path)}' for word in ('check', 'train')),
    ]
    for line in lines:
        console.print(line)


def _length(report: InitReport) -> str:
    plan = report.plan
    images = f'{plan.batch} image{"s" if plan.batch > 1 else ""} on one GPU'
    if plan.by_epoch:
        return f'{plan.epochs} epochs of {plan.steps} steps with {images}'
    return f'{plan.total} steps ({plan.epochs:.0f} epochs) with {images}'


def _table(report: InitReport) -> Table:
    from rich import box
    from rich.table import Table

    data = report.data
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column('label', justify='right')
    table.add_column('class')
    for split in ('train', 'val'):
        table.add_column(f'{data.unit} {split}', justify='right')
        if data.train.in_images is not None:
            table.add_column(f'images {split}', justify='right')
    order = sorted(range(len(data.classes)), key=lambda label: -data.train.counts[label])
    if len(order) <= _MOST:
        shown: list[int | None] = list(range(len(order)))
    else:
        shown = [*order[: _MOST - 6], None, *order[-6:]]
    for label in shown:
        if label is None:
            table.add_row('', f'… {len(order) - _MOST} more')
            continue
        row = [str(label), printable(data.classes[label], 40)]
        for split in (data.train, data.val):
            row.append(_count(split.counts, label, data.unit))
            if split.in_images is not None:
                row.append(str(split.in_images[label]))
        table.add_row(*row)
    return table


def _count(counts: Sequence[int], label: int, unit: str) -> str:
    if unit != 'pixels':
        return str(counts[label])
    return f'{100 * counts[label] / max(sum(counts), 1):.2g} %'
