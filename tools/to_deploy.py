#!/usr/bin/env python
"""``mmwave deploy``, where the package is not installed as a command."""

from mmwave.cli import parser_of, run_tool
from mmwave.cli.commands import deploy

if __name__ == '__main__':
    run_tool(deploy.main, parser_of(deploy))
