"""A name with the scope is found without an import or ``custom_imports``."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ('registry', 'name'),
    [
        ('MODELS', 'WaveMLP'),
        ('HOOKS', 'LoadReportHook'),
        ('OPTIM_WRAPPERS', 'AutocastOptimWrapper'),
    ],
)
def test_mmengine_finds_what_is_registered_here(registry, name):
    code = (
        f'from mmengine.registry import {registry} as theirs\n'
        f"print(theirs.get('mmwave.{name}').__name__)\n"
        f'import mmwave.registry\n'
        f'assert mmwave.registry.{registry}.parent is theirs\n'
        f"assert theirs.get('{name}') is None  # nothing without the scope\n"
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, name), done.stderr
