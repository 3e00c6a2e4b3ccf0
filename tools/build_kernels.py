#!/usr/bin/env python
"""Compile the C++ kernel of Wave-MLP's token mixing for this machine's CPU; needed by nothing.

Once it stands, every process here takes it where it can.
"""

import argparse

from mmwave.apis.cli import run_tool
from mmwave.errors import UserError
from mmwave.ops.phase_mix import cpp


def main(args: argparse.Namespace) -> None:
    try:
        print(f'built {cpp.build()}')
    except RuntimeError as error:
        raise UserError(str(error)) from error


if __name__ == '__main__':
    run_tool(main, argparse.ArgumentParser(description=__doc__))
