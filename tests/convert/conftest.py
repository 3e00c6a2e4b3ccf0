"""The converter's command line."""

import sys

import pytest

from mmwave.cli import parser_of, run_tool
from mmwave.cli.commands import convert


@pytest.fixture
def tool(tmp_path, monkeypatch, capsys):
    """Run the tool in this process, in ``tmp_path``: (exit code, standard output, error output)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')  # which the tool would set for good

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['convert', *arguments])
        code = 0
        try:
            run_tool(convert.main, parser_of(convert))
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    return run
