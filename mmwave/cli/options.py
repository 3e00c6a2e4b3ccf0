"""Options that several commands share, under the names that mmdetection's tools use."""

import argparse
from collections.abc import Sequence
from typing import Any

from mmwave.apis.usage import LAUNCHERS
from mmwave.apis.values import Typed


class Settings(argparse.Action):
    """Collect KEY=VALUE pairs, over several options too; values stay as they were typed."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        settings = dict(getattr(namespace, self.dest) or {})
        for text in values or ():
            key, equals, value = text.partition('=')
            if not (equals and key):
                raise argparse.ArgumentError(self, f'{text!r} is no KEY=VALUE')
            settings[key] = Typed(value)
        setattr(namespace, self.dest, settings)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Settings,
        metavar='KEY=VALUE',
        help='replace settings of the config, e.g. train_dataloader.batch_size=4',
    )


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--verbose``."""
    parser.add_argument(
        '--verbose', action='store_true', help='show everything that the libraries print and log'
    )


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add the option ``--trust-checkpoint``."""
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='read checkpoints that run code when they are read: only your own',
    )


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the argument ``config``, which is converted to a path."""
    parser.add_argument('config', help='a shipped config by its name, or the path of a file')


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every command that runs a config."""
    parser.add_argument(
        '--work-dir', help='folder for logs and checkpoints (default: work_dirs/NAME)'
    )
    add_settings(parser)
    add_verbose(parser)
    processes = parser.add_mutually_exclusive_group()
    processes.add_argument(
        '--gpus',
        type=int,
        metavar='N',
        help='start N processes, one for each GPU; without any, on the CPU',
    )
    processes.add_argument(
        '--launcher',
        choices=LAUNCHERS,
        default='none',
        metavar='NAME',
        help=f'who started this process: {", ".join(LAUNCHERS)}',
    )
    add_trust(parser)
    processes.add_argument(
        '--check-only',
        type=int,
        metavar='N',
        help='check config, data folders and GPUs for N processes; run nothing',
    )
    # Older launchers pass it; torchrun sets the environment variable instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
