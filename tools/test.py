#!/usr/bin/env python
"""``mmwave test``, where the package is not installed as a command."""

from mmwave.cli import parser_of, run_tool
from mmwave.cli.commands import test

if __name__ == '__main__':
    run_tool(test.main, parser_of(test))
