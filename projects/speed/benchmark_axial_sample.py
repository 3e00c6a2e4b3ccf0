#!/usr/bin/env python
"""Time ``axial_sample`` and a product against torchvision's ``deform_conv2d`` at ActiveMLP's sizes.

Equal outputs and gradients first, then a table of how many times as fast ours is.
"""

import argparse
import sys
from collections.abc import Sequence

from speed.options import Parser, exit_status, positive


def parser() -> argparse.ArgumentParser:
    given = Parser(description=__doc__)
    given.add_argument('--repeats', type=positive, default=20, help='the fastest run counts')
    given.add_argument('--threads', type=positive, nargs='+', default=[1, 2])
    return given


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_status(lambda: benchmark(args))


def benchmark(args: argparse.Namespace) -> int:
    """Print the table; return 1 where outputs differ."""
    # What needs torch is imported once the command line is parsed.
    from speed.axial_sample import run

    return run(args.repeats, args.threads)


if __name__ == '__main__':
    sys.exit(main())
