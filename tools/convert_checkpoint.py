#!/usr/bin/env python
"""``mmwave convert``, where the package is not installed as a command."""

from mmwave.cli import parser_of, run_tool
from mmwave.cli.commands import convert

if __name__ == '__main__':
    run_tool(convert.main, parser_of(convert))
