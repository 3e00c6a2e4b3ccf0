#!/usr/bin/env python
"""Time our backbones against the published structure: equal outputs first, then a table."""

import argparse
import sys
from collections.abc import Sequence

from mmwave.errors import UserError
from speed.options import (
    MODES,
    Parser,
    add_measuring,
    exit_status,
    positive,
    size_and_batch,
)


def parser() -> argparse.ArgumentParser:
    given = Parser(description=__doc__)
    add = given.add_argument
    add('models', nargs='*', metavar='MODEL', help='FAMILY-ARCH, e.g. wavemlp-t; none lists all')
    add_measuring(
        given,
        size=size_and_batch,
        default=[(224, 224, None)],
        size_help='HEIGHTxWIDTH or HEIGHTxWIDTH@BATCH (default: 224x224)',
    )
    add('--batch', type=positive, default=1, help='images of one call where a size names none')
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
    add('--threads', type=positive, help="torch's threads (default: its own choice)")
    return given


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_status(lambda: benchmark(args))


def benchmark(args: argparse.Namespace) -> int:
    """Print the table; return 1 where a model was not measured."""
    # What needs torch is imported once the command line is parsed.
    import torch

    from speed.benchmark import run
    from speed.cases import cases, models
    from speed.peers import CONTENDERS
    from speed.report import backbone_layout, backbone_records
    from speed.session import measure, prepare

    if not args.models:
        raise UserError(f'no model named: expected some of {", ".join(models())}')
    prepare(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    sizes = [(h, w, args.batch if n is None else n) for h, w, n in args.size]
    todo = cases(args.models, sizes=sizes, dtypes=args.dtype, modes=args.mode)
    peers = [case.model.peer for case in todo]
    if args.contenders or any(peer and peer.name == 'timm' for peer in peers):
        import timm  # noqa: F401  reported as missing before anything is measured
    return measure(
        todo,
        lambda case: run(
            case,
            repeats=args.repeats,
            device=args.device,
            compiler=args.compiler,
            contenders=tuple(CONTENDERS) if args.contenders else (),
        ),
        args,
        layout=backbone_layout,
        records=backbone_records,
    )


if __name__ == '__main__':
    sys.exit(main())
