"""The command ``mmwave`` and what the scripts in ``tools`` share with it; imports nothing heavy.

A command is a module: its docstring is its help, ``EXAMPLES`` two real calls, ``add_arguments``
defines what it accepts and ``main`` calls a function of the same name in another room.
"""

from .options import add_settings, add_trust, add_verbose
from .parsers import Parser, parser_of
from .running import run_tool

__all__ = ['Parser', 'add_settings', 'add_trust', 'add_verbose', 'parser_of', 'run_tool']
