#!/usr/bin/env python
"""Render the benchmarks' CSV files as a plot, and as tables into a README."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmwave.errors import UserError
from speed.options import exit_status


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'csvs',
        nargs='+',
        type=Path,
        metavar='CSV',
        help='of benchmark.py, and of benchmark_models.py for the tables',
    )
    parser.add_argument('out', type=Path, metavar='OUT.png', help='the plot')
    parser.add_argument(
        '--readme',
        type=Path,
        help='replace the text between its speed:begin and speed:end markers by tables',
    )
    args = parser.parse_args(argv)
    return exit_status(lambda: plot(args))


def plot(args: argparse.Namespace) -> int:
    """Draw the plot, then write the README: both or neither."""
    from speed.plot import draw, markdown, replace_table

    if args.out.suffix not in ('.png', '.svg', '.pdf'):
        raise UserError(f'{str(args.out)!r} must end in .png, .svg or .pdf')
    if args.readme:
        try:
            text = args.readme.read_text(encoding='utf-8')
        except OSError as error:
            raise UserError(f'{args.readme} cannot be read: {error}') from None
        text = replace_table(text, markdown(args.csvs))
    try:
        draw(args.csvs, args.out)
    except FileNotFoundError as error:
        raise UserError(str(error)) from None
    if args.readme:
        args.readme.write_text(text, encoding='utf-8')
    print(f'drew {args.out}' + (f', wrote tables into {args.readme}' if args.readme else ''))
    return 0


if __name__ == '__main__':
    sys.exit(main())
