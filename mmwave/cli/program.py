"""The command ``mmwave``: one program, a word for each thing to do."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import mmwave
from mmwave.apis.usage import libraries_named

from .commands import check, convert, deploy, export, info, init, predict, publish, test, train
from .parsers import Parser, parser_of
from .running import run_tool

COMMANDS = {
    'init': init,
    'check': check,
    'train': train,
    'test': test,
    'predict': predict,
    'info': info,
    'export': export,
    'publish': publish,
    'deploy': deploy,
    'convert': convert,
}
"""Word -> module, in the order of a day's work."""


class _Completion(argparse.Action):
    """Print what a shell completes the command by."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        with libraries_named():
            import shtab
        print(shtab.complete(parser, str(values)))
        parser.exit()


def parser() -> Parser:
    """Return the parser of the program with those of all commands."""
    program = Parser(prog='mmwave', description=mmwave.__doc__)
    program.add_argument('--version', action='version', version=f'mmwave {mmwave.__version__}')
    program.add_argument(
        '--print-completion',
        choices=('bash', 'zsh', 'tcsh'),
        action=_Completion,
        help='print the completion of this command for a shell, to be sourced by it',
    )
    words = program.add_subparsers(metavar='COMMAND', required=True, dest='command')
    for word, command in COMMANDS.items():
        summary = (command.__doc__ or '').partition('\n')[0]
        parser_of(command, words.add_parser(word, help=summary))
    program.epilog = "mmwave COMMAND --help tells a command's arguments and shows two calls"
    return program


def main() -> None:
    """Run the command that ``sys.argv`` holds."""
    if len(sys.argv) == 1:
        parser().print_help()
        return
    run_tool(lambda args: COMMANDS[args.command].main(args), parser())
