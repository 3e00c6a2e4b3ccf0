"""Importing mmwave.apis costs nothing, and all of its names are there."""

import subprocess
import sys

import pytest

from mmwave import apis

SCRIPT = """
import sys
from mmwave import apis
from mmwave import cli
assert not {'numpy', 'torch', 'mmengine', 'mmcv'} & set(sys.modules)
assert set(apis.__all__) <= set(dir(apis))
from mmwave.apis import preflight, train
from mmwave.apis import *
from mmwave.apis import preflight as again
assert preflight is again
assert all(callable(getattr(apis, name)) for name in apis.__all__)
assert train is sys.modules['mmwave.apis.run'].train
assert preflight is sys.modules['mmwave.apis.preflight'].preflight
"""


def test_nothing_heavy_is_imported_before_it_is_asked_for():
    done = subprocess.run([sys.executable, '-c', SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_other_names_are_no_attributes():
    with pytest.raises(AttributeError, match=r"module 'mmwave.apis' has no attribute 'nothing'"):
        apis.nothing  # noqa: B018
