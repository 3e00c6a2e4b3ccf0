#!/usr/bin/env python
"""Run the suites behind the tables and the plot of docs/speed: an hour on two idle cores.

Which models a suite measures is declared by the peers in ``speed/peers``.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from speed.options import exit_status
from speed.suites import ROOT, SUITES

HERE = Path(__file__).parent


def parser() -> argparse.ArgumentParser:
    given = argparse.ArgumentParser(description=__doc__.partition('\n')[0] if __doc__ else '')
    given.add_argument(
        'suites', nargs='*', metavar='SUITE', help=f'some of {", ".join(SUITES)} (default: all)'
    )
    given.add_argument(
        '--out',
        type=Path,
        default=ROOT / 'docs/speed',
        metavar='FOLDER',
        help='where CSV files and plot are written, and tables into its README.md, if there '
        'is one (default: docs/speed)',
    )
    given.add_argument('--dry-run', action='store_true', help='print the commands only')
    return given


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return exit_status(lambda: run(args))


def run(args: argparse.Namespace) -> int:
    """Run the suites one after the other, each in a process; stop at the first that fails."""
    from speed.suites import commands

    args.out.mkdir(parents=True, exist_ok=True)
    for command in commands(args.suites or list(SUITES), args.out.resolve()):
        print('$', *command, flush=True)
        if not args.dry_run:
            done = subprocess.run([sys.executable, *command], cwd=ROOT)
            if done.returncode:
                return done.returncode
    return 0


if __name__ == '__main__':
    sys.exit(main())
