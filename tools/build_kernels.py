#!/usr/bin/env python
"""Compile the ops' kernels in C++ for this machine's CPU; needed by nothing.

Once they stand, every process here takes them where it can.
"""

import argparse

from mmwave.apis.cli import run_tool
from mmwave.errors import UserError


def main(args: argparse.Namespace) -> None:
    from mmwave.ops import extension

    try:
        print(f'built {extension.build()}')
    except RuntimeError as error:
        raise UserError(str(error)) from error


if __name__ == '__main__':
    run_tool(main, argparse.ArgumentParser(description=__doc__))
