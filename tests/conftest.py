"""One thread a process, an mmcv that has its compiled ops, and where the repository is."""

import os
import tempfile
from pathlib import Path

import mmcv._ext  # noqa: F401  an mmcv without them must fail here, not in the first detector
import pytest
import torch

from tests.contracts import ROOT

# No kernel that was built on this machine: the tests run what everyone has, and build their own.
os.environ['TORCH_EXTENSIONS_DIR'] = os.path.join(tempfile.gettempdir(), 'mmwave-tests-none')
torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '1')))


@pytest.fixture
def root() -> Path:
    """The top folder of the repository."""
    return ROOT
