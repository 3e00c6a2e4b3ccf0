"""The converter's command line."""

import importlib.util
import sys

import pytest

from mmwave.apis.cli import run_tool


@pytest.fixture
def tool(root, tmp_path, monkeypatch, capsys):
    """Run the tool in this process, in ``tmp_path``: (exit code, standard output, error output)."""
    path = root / 'tools' / 'convert_checkpoint.py'
    spec = importlib.util.spec_from_file_location('convert_checkpoint', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')  # which the tool would set for good

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', [str(path), *arguments])
        code = 0
        try:
            run_tool(module.main, module.parser())
        except SystemExit as ended:
            code = ended.code
        return code, *capsys.readouterr()

    return run
