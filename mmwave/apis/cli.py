"""What the command line tools share: common options, and errors that end in one line."""

import argparse
import os
import sys
from collections.abc import Callable

from mmengine.config import DictAction

from mmwave.engine.process_group import leave_process_group
from mmwave.errors import UserError, printable

from .run import LAUNCHERS

_NO_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every tool that runs a config, under the names mmdetection's tools use."""
    parser.add_argument(
        '--work-dir', help='folder for logs and checkpoints (default: work_dirs/NAME)'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='replace settings of the config, e.g. train_dataloader.batch_size=4',
    )
    parser.add_argument(
        '--launcher', choices=LAUNCHERS, default='none', help='who started this process'
    )
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='read checkpoints that run code when they are read: only your own',
    )
    parser.add_argument(
        '--check-only',
        type=int,
        metavar='PROCESSES',
        help='check config, data folders and GPUs for so many processes; run nothing',
    )
    # Older launchers pass it; torchrun sets the environment variable instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def run_tool(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse the command line and call ``main``; a user's error ends in one line and exit code 2.

    Such are :class:`UserError` and files that are not there or must not be opened. All others are
    mistakes of ours and keep their traceback.
    """
    args = parser.parse_args()
    # torchrun and mmengine's Slurm set-up set it themselves, Open MPI under its own name.
    local_rank = os.environ.get('OMPI_COMM_WORLD_LOCAL_RANK', getattr(args, 'local_rank', 0))
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    try:
        main(args)
    except (UserError, *_NO_FILE) as error:
        lines = (printable(line.strip(), 4000) for line in str(error).splitlines())
        print(f'error: {"; ".join(lines)}', file=sys.stderr, flush=True)
        sys.exit(2)
    leave_process_group()
