"""The converter's command line."""

import importlib.util
import sys

import pytest


@pytest.fixture
def tool(root, tmp_path, monkeypatch, capsys):
    """Run the tool in this process, in ``tmp_path``: (exit code, standard output, error output)."""
    path = root / 'tools' / 'convert_checkpoint.py'
    spec = importlib.util.spec_from_file_location('convert_checkpoint', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', [str(path), *arguments])
        return module.main(), *capsys.readouterr()

    return run
