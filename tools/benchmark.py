#!/usr/bin/env python
"""Time our backbones against the published structure: equal outputs first, then a table."""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import torch

from mmwave.analysis.benchmark import MODES, WIDER, Case, Row, cases, models, run
from mmwave.analysis.equality import Unequal
from mmwave.analysis.report import records, table
from mmwave.analysis.timing import machine
from mmwave.errors import UserError


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; argparse prints the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'error: {message}\n')


def size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r'(\d+)x(\d+)', text)
    if not found:
        raise argparse.ArgumentTypeError(f'{text!r} is no HEIGHTxWIDTH, such as 448x672')
    return int(found[1]), int(found[2])


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} must be a whole number of at least 1')
    return int(text)


def parser() -> argparse.ArgumentParser:
    given = Parser(description=__doc__)
    given.add_argument('models', nargs='*', metavar='MODEL', help=f'any of {", ".join(models())}')
    given.add_argument('--size', nargs='+', type=size, default=[(224, 224)], help='HEIGHTxWIDTH')
    given.add_argument('--batch', type=positive, default=1, help='images of one call')
    given.add_argument('--dtype', nargs='+', choices=list(WIDER), default=['float32'])
    given.add_argument('--mode', nargs='+', choices=MODES, default=['inference'])
    given.add_argument('--repeats', type=positive, default=7, help='rounds, at least 2')
    given.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    given.add_argument('--threads', type=positive, help="torch's threads (default: its own choice)")
    given.add_argument('--csv', type=Path, metavar='FILE', help='write the rows here as well')
    return given


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        if not args.models:
            raise UserError(f'no model named: expected some of {", ".join(models())}')
        if args.device == 'cuda' and not torch.cuda.is_available():
            raise UserError('no CUDA device here: use --device cpu')
        # Convolutions, which the peer has where ours has matrix products, may else round coarser.
        torch.backends.cudnn.allow_tf32 = False
        if args.threads:
            torch.set_num_threads(args.threads)
        todo = cases(
            args.models, sizes=args.size, batch=args.batch, dtypes=args.dtype, modes=args.mode
        )
        if args.csv and not args.csv.parent.is_dir():
            raise UserError(f'no folder {str(args.csv.parent)!r} to write {args.csv.name!r} into')
        here = machine(args.device)
        print(here, flush=True)
        rows: list[Row] = []
        for line in table(measured(todo, args, rows), repeats=args.repeats):
            print(line, flush=True)
        if args.csv:
            args.csv.write_text(records(rows, here))
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except Unequal as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


def measured(todo: list[Case], args: argparse.Namespace, rows: list[Row]) -> Iterator[Row]:
    """Measure case by case; every row goes into ``rows`` as well."""
    for case in todo:
        for row in run(case, repeats=args.repeats, device=args.device):
            rows.append(row)
            yield row


if __name__ == '__main__':
    sys.exit(main())
