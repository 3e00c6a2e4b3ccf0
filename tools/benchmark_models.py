#!/usr/bin/env python
"""Time inference of whole detectors and segmentors in train form and deploy form."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mmwave.apis.cli import add_settings, add_verbose
from mmwave.apis.usage import libraries_named
from mmwave.errors import UserError

# torch and what needs it are imported once the command line is understood.
if TYPE_CHECKING:
    from mmwave.analysis.pipelines import Case, Row

DTYPES = ('float32', 'bfloat16')


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:  # in one line, without the usage
        self.exit(2, f'error: {message}\n')


def size(text: str) -> tuple[int, int]:
    height, _, width = text.partition('x')
    if not (height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f'{text!r} is no HEIGHTxWIDTH, such as 800x1333')
    return int(height), int(width)


def parser() -> argparse.ArgumentParser:
    given = Parser(description=__doc__)
    given.add_argument('configs', nargs='+', metavar='CONFIG', help='of a detector or segmentor')
    given.add_argument('--size', nargs='+', type=size, default=[], help='HEIGHTxWIDTH of the image')
    given.add_argument('--dtype', nargs='+', choices=DTYPES, default=['float32'])
    given.add_argument('--repeats', type=int, default=7, help='rounds, at least 2')
    given.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    add_settings(given)
    add_verbose(given)
    given.add_argument('--csv', type=Path, metavar='FILE', help='write the rows here as well')
    return given


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        with libraries_named():
            return benchmark(args)
    except UserError as error:
        parser().error(str(error))


def benchmark(args: argparse.Namespace) -> int:
    """Print the table; return 1 where a model failed."""
    import torch

    from mmwave.analysis.pipelines import cases, records, table
    from mmwave.analysis.timing import machine
    from mmwave.engine.console import console

    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('no CUDA device here: use --device cpu')
    if args.repeats < 2:
        raise UserError(f'repeats={args.repeats} must be at least 2')
    if args.csv and not args.csv.parent.is_dir():
        raise UserError(f'no folder {str(args.csv.parent)!r} to write {args.csv.name!r} into')
    with console(args.verbose):
        todo = cases(args.configs, sizes=args.size, dtypes=args.dtype, cfg_options=args.cfg_options)
    torch.backends.cudnn.allow_tf32 = False  # as in tools/benchmark.py
    here = machine(args.device)
    print(here, flush=True)
    rows: list[Row] = []
    for line in table(measured(todo, args, rows), args.repeats, max(len(c.name) for c in todo)):
        print(line, flush=True)
        if args.csv and rows:
            args.csv.write_text(records(rows, here))
    return 0 if len(rows) == len(todo) else 1


def measured(todo: list[Case], args: argparse.Namespace, rows: list[Row]) -> Iterator[Row]:
    """Measure case by case; every row goes into ``rows`` as well, one that fails is left out."""
    from mmwave.analysis.equality import Unequal
    from mmwave.analysis.pipelines import run
    from mmwave.engine.console import console

    for case in todo:
        try:
            with console(args.verbose):
                rows.append(run(case, repeats=args.repeats, device=args.device))
        except (UserError, Unequal) as error:
            print(f'error: {error}', file=sys.stderr, flush=True)
        else:
            yield rows[-1]


if __name__ == '__main__':
    sys.exit(main())
