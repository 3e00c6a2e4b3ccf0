"""What the scripts' command lines share. Imports nothing heavy: they are parsed before torch."""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from mmwave.apis.usage import libraries_named
from mmwave.errors import UserError

DTYPES = ('float32', 'bfloat16')
"""What models and images are measured in."""
MODES = ('inference', 'train')
"""What is measured of a backbone: a forward pass, or one with its backward pass."""


class Parser(argparse.ArgumentParser):
    """Report what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f'error: {message}\n')


def size(text: str) -> tuple[int, int]:
    """Parse HEIGHTxWIDTH."""
    found = re.fullmatch(r'(\d+)x(\d+)', text)
    if not found:
        raise argparse.ArgumentTypeError(f'{text!r} is no HEIGHTxWIDTH, such as 800x1333')
    return int(found[1]), int(found[2])


def size_and_batch(text: str) -> tuple[int, int, int | None]:
    """Parse HEIGHTxWIDTH or HEIGHTxWIDTH@BATCH."""
    found = re.fullmatch(r'(\d+)x(\d+)(?:@(\d+))?', text)
    if not found:
        raise argparse.ArgumentTypeError(
            f'{text!r} is no HEIGHTxWIDTH or HEIGHTxWIDTH@BATCH, such as 448x672@8'
        )
    return int(found[1]), int(found[2]), int(found[3]) if found[3] else None


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} must be a whole number of at least 1')
    return int(text)


def add_measuring(
    parser: argparse.ArgumentParser,
    *,
    size: Callable[[str], Any],
    default: list[Any],
    size_help: str,
) -> None:
    """Add the options of every measurement: images, dtypes, rounds, device, file."""
    add = parser.add_argument
    add('--size', nargs='+', type=size, default=default, metavar='SIZE', help=size_help)
    add('--dtype', nargs='+', choices=DTYPES, default=[DTYPES[0]])
    add('--repeats', type=positive, default=7, help='rounds, at least 2')
    add('--device', choices=('cpu', 'cuda'), default='cpu')
    add('--csv', type=Path, metavar='FILE', help='write the rows here as well')


def exit_status(work: Callable[[], int]) -> int:
    """Call ``work``; report a user's mistake or a missing library in one line and return 2."""
    try:
        with libraries_named():
            return work()
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
