"""A run in several processes of this machine, as ``tools/dist_train.sh`` starts it."""

import argparse
import os
import sys
from typing import NoReturn

from mmwave.apis.config_names import tools_folder
from mmwave.errors import UserError

_START = '. "$1/launch.sh"; shift; run_distributed "$@"'


def start_processes(word: str, args: argparse.Namespace) -> NoReturn:
    """Replace this process by the launcher of ``args.gpus`` processes of the same command.

    Args:
        word: ``'train'`` or ``'test'``.
        args: what ``sys.argv`` was parsed to.
    """
    folder = tools_folder()
    if folder is None:
        raise UserError('--gpus: the launchers in tools are not beside mmwave: install it again')
    rest = sys.argv[2 if hasattr(args, 'command') else 1 :]
    at = next(place for place, text in enumerate(rest) if text.partition('=')[0] == '--gpus')
    del rest[at : at + (1 if '=' in rest[at] else 2)]
    os.environ['PYTHON'] = sys.executable
    script = str(folder / f'{word}.py')
    sys.stdout.flush()
    os.execvp('bash', ['bash', '-c', _START, 'mmwave', str(folder), str(args.gpus), script, *rest])
