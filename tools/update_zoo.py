#!/usr/bin/env python
"""Render the tables of configs in the READMEs: what can be computed, and the metafiles' figures."""

import argparse
from pathlib import Path

from mmwave.cli import run_tool


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--check',
        action='store_true',
        help='change nothing; exit 1 naming the tables to render again',
    )
    parser.add_argument(
        '--root',
        type=Path,
        default=Path(__file__).resolve().parents[1],
        help='the folder that holds README.md and configs (default: this repository)',
    )
    return parser


def main(args: argparse.Namespace) -> int:
    from mmwave.zoo import Zoo, stale_tables, update_readmes

    zoo = Zoo(args.root)
    tables = stale_tables(zoo) if args.check else update_readmes(zoo)
    for table in tables:
        print(f'stale: {table}' if args.check else f'rendered {table}')
    if not tables:
        print('all tables are current')
    return 1 if args.check and tables else 0


if __name__ == '__main__':
    run_tool(main, parser())
