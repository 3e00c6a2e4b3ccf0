"""One thread a process, an mmcv that has its compiled ops, and where the repository is."""

import os
from pathlib import Path

import mmcv._ext  # noqa: F401  an mmcv without them must fail here, not in the first detector
import pytest
import torch

from tests.contracts import ROOT

torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '1')))


@pytest.fixture
def root() -> Path:
    """The top folder of the repository."""
    return ROOT
