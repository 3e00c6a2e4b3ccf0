"""Parsers whose errors are one line that names what is close to a misspelt word."""

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any, NoReturn

from mmwave.apis.usage import close_names
from mmwave.engine.exit_codes import USER_ERROR

_CHOICE = re.compile(r"invalid choice: '(?P<word>[^']*)' \(choose from (?P<choices>.*)\)$")


class Parser(argparse.ArgumentParser):
    """A parser of one command."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault('formatter_class', argparse.RawDescriptionHelpFormatter)
        # An abbreviation that works today names two options tomorrow.
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        # argparse names unknown options of a command in the usage of the program.
        namespace, unknown = self.parse_known_args(args, namespace)
        if unknown:
            parser = getattr(namespace, 'parser', self)
            parser.error(f'unrecognized arguments: {" ".join(unknown)}', unknown)
        return namespace

    def error(self, message: str, unknown: Sequence[str] = ()) -> NoReturn:
        """Print one line and exit with code 2.

        Args:
            message: argparse's.
            unknown: arguments of no meaning, of which those that are options are misspelt.
        """
        hints = [close_names(word.partition('=')[0], self._options()) for word in unknown]
        if choice := _CHOICE.search(message):
            hints.append(close_names(choice['word'], re.findall(r'[\w-]+', choice['choices'])))
        line = '; '.join([' '.join(message.split()), *dict.fromkeys(filter(None, hints))])
        print(f'error: {line} ({self.prog} --help)', file=sys.stderr)
        sys.exit(USER_ERROR)

    def _options(self) -> Iterable[str]:
        return [option for option in self._option_string_actions if option.startswith('--')]


def parser_of(command: ModuleType, parser: argparse.ArgumentParser | None = None) -> Parser:
    """Return the parser of a command.

    Args:
        command: its module: the docstring is the description, ``EXAMPLES`` hold two calls without
            the program, ``add_arguments`` adds the arguments, ``main`` does the work.
        parser: to add to; None makes one for a script.
    """
    parser = parser or Parser()
    parser.description = command.__doc__
    lines = [f'  {parser.prog} {example}' for example in command.EXAMPLES]
    parser.epilog = '\n'.join(['examples:', *lines])
    command.add_arguments(parser)
    parser.set_defaults(parser=parser)
    return parser
