#!/usr/bin/env python
"""``mmwave train``, where the package is not installed as a command."""

from mmwave.cli import parser_of, run_tool
from mmwave.cli.commands import train

if __name__ == '__main__':
    run_tool(train.main, parser_of(train))
