#!/usr/bin/env python
"""Time inference of whole detectors and segmentors in train form and deploy form."""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmwave.cli import add_settings, add_verbose
from mmwave.errors import UserError
from speed.options import Parser, add_measuring, exit_status, size

if TYPE_CHECKING:
    from speed.cases import Case, Result


def parser() -> argparse.ArgumentParser:
    given = Parser(description=__doc__)
    given.add_argument('configs', nargs='+', metavar='CONFIG', help='of a detector or segmentor')
    add_measuring(given, size=size, default=[], size_help='HEIGHTxWIDTH of the image')
    add_settings(given)
    add_verbose(given)
    return given


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_status(lambda: benchmark(args))


def benchmark(args: argparse.Namespace) -> int:
    """Print the table; return 1 where a model failed."""
    # What needs torch is imported once the command line is parsed.
    from mmwave.engine.console import console
    from speed.pipelines import cases, run
    from speed.report import whole_layout, whole_records
    from speed.session import measure, prepare

    prepare(args)
    with console(args.verbose):
        todo = cases(args.configs, sizes=args.size, dtypes=args.dtype, cfg_options=args.cfg_options)
    layout = whole_layout(case.model.name for case in todo)

    def run_quietly(case: 'Case[Any]') -> 'Result':
        with console(args.verbose):
            return run(case, repeats=args.repeats, device=args.device)

    return measure(
        todo,
        run_quietly,
        args,
        layout=lambda result: layout,
        records=whole_records,
        skip=(UserError,),
    )


if __name__ == '__main__':
    sys.exit(main())
