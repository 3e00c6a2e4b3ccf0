#!/usr/bin/env python
"""Time our backbones against the published structure: equal outputs first, then a table."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mmwave.apis.usage import libraries_named
from mmwave.errors import UserError

# torch and what needs it are imported once the command line is understood.
if TYPE_CHECKING:
    from mmwave.analysis.cases import Case, Result

DTYPES = ('float32', 'bfloat16')
MODES = ('inference', 'train')


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line; argparse prints the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'error: {message}\n')


def size(text: str) -> tuple[int, int, int | None]:
    found = re.fullmatch(r'(\d+)x(\d+)(?:@(\d+))?', text)
    if not found:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no HEIGHTxWIDTH or HEIGHTxWIDTH@BATCH, such as 448x672@8'
        )
    return int(found[1]), int(found[2]), int(found[3]) if found[3] else None


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} must be a whole number of at least 1')
    return int(text)


def parser() -> argparse.ArgumentParser:
    given = Parser(description=__doc__)
    add = given.add_argument
    add('models', nargs='*', metavar='MODEL', help='FAMILY-ARCH, e.g. wavemlp-t; none lists all')
    add(
        '--size',
        nargs='+',
        type=size,
        default=[(224, 224, None)],
        metavar='SIZE',
        help='HEIGHTxWIDTH or HEIGHTxWIDTH@BATCH (default: 224x224)',
    )
    add('--batch', type=positive, default=1, help='images of one call where a size names none')
    add('--dtype', nargs='+', choices=DTYPES, default=['float32'])
    add('--mode', nargs='+', choices=MODES, default=['inference'])
    add(
        '--compile',
        dest='compiler',
        action='store_const',
        const='inductor',
        help='measure every form compiled by torch.compile as well; minutes for each',
    )
    add(
        '--contenders',
        action='store_true',
        help='time Swin-T and ConvNeXt-T beside, which compute something else',
    )
    add('--repeats', type=positive, default=7, help='rounds, at least 2')
    add('--device', choices=('cpu', 'cuda'), default='cpu')
    add('--threads', type=positive, help="torch's threads (default: its own choice)")
    add('--csv', type=Path, metavar='FILE', help='write the rows here as well')
    return given


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        with libraries_named():
            return benchmark(args)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2


def benchmark(args: argparse.Namespace) -> int:
    """Print the table; return 1 where a model was refused."""
    import torch

    from mmwave.analysis.cases import cases, models
    from mmwave.analysis.report import table
    from mmwave.analysis.timing import machine

    refused: list[str] = []
    if not args.models:
        raise UserError(f'no model named: expected some of {", ".join(models())}')
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('no CUDA device here: use --device cpu')
    # Convolutions, which the peer has where ours has matrix products, may else round coarser.
    torch.backends.cudnn.allow_tf32 = False
    if args.threads:
        torch.set_num_threads(args.threads)
    sizes = [(h, w, args.batch if n is None else n) for h, w, n in args.size]
    todo = cases(args.models, sizes=sizes, dtypes=args.dtype, modes=args.mode)
    if args.contenders or any(case.peer.name == 'timm' for case in todo):
        import timm  # noqa: F401  told as missing before anything is measured, not after an hour
    if args.csv and not args.csv.parent.is_dir():
        raise UserError(f'no folder {str(args.csv.parent)!r} to write {args.csv.name!r} into')
    print(machine(args.device), flush=True)
    for line in table(measured(todo, args, refused), repeats=args.repeats):
        print(line, flush=True)
    return 1 if refused else 0


def measured(todo: list[Case], args: argparse.Namespace, refused: list[str]) -> Iterator[Result]:
    """Measure case by case, writing the file anew after each; what is unequal into ``refused``."""
    from mmwave.analysis.benchmark import run
    from mmwave.analysis.equality import Unequal
    from mmwave.analysis.peers import CONTENDERS
    from mmwave.analysis.report import records
    from mmwave.analysis.timing import machine

    results: list[Result] = []
    for case in todo:
        try:
            result = run(
                case,
                repeats=args.repeats,
                device=args.device,
                compiler=args.compiler,
                contenders=tuple(CONTENDERS) if args.contenders else (),
            )
        except Unequal as error:
            refused.append(case.model)
            print(f'error: {case.model}: nothing is timed: {error}', file=sys.stderr)
            continue
        if not result.sound:
            refused.append(case.model)
        results.append(result)
        if args.csv:
            args.csv.write_text(records(results, machine(args.device)))
        yield result


if __name__ == '__main__':
    sys.exit(main())
