#!/usr/bin/env python
"""Render the tables of configs in the READMEs: what can be computed, and the metafiles' figures."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmwave.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--check',
        action='store_true',
        help='change nothing; exit 1 naming the tables to render anew',
    )
    parser.add_argument(
        '--root',
        type=Path,
        default=Path(__file__).resolve().parents[1],
        help='the folder that holds README.md and configs (default: this repository)',
    )
    args = parser.parse_args(argv)
    from mmwave.zoo import Zoo, stale_tables, update_readmes

    try:
        zoo = Zoo(args.root)
        tables = stale_tables(zoo) if args.check else update_readmes(zoo)
    except (UserError, FileNotFoundError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    for table in tables:
        print(f'stale: {table}' if args.check else f'rendered {table}')
    if not tables:
        print('all tables are current')
    return 1 if args.check and tables else 0


if __name__ == '__main__':
    sys.exit(main())
