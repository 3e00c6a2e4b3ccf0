#!/usr/bin/env python
"""Compile the ops' C++ kernels for the CPU of this machine; optional.

Once they are built, every process here uses them where it can.
"""

import argparse

from mmwave.cli import run_tool
from mmwave.errors import UserError


def parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description=__doc__)


def main(args: argparse.Namespace) -> None:
    from mmwave.ops import extension

    try:
        print(f'built {extension.build()}')
    except RuntimeError as error:
        raise UserError(str(error)) from error


if __name__ == '__main__':
    run_tool(main, parser())
