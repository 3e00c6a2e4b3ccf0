"""Shared set-up: real data by environment variable, one thread, and an mmcv that has its ops."""

import os
from pathlib import Path

import mmcv._ext  # noqa: F401  an mmcv without compiled ops must fail here, not in the first detector
import pytest
import torch

torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '1')))

ROOT = Path(__file__).parent.parent


@pytest.fixture
def root() -> Path:
    """The top folder of the repository."""
    return ROOT


@pytest.fixture
def real_data() -> Path:
    """The folder of real labelled images."""
    folder = os.environ.get('MMWAVE_DATA')
    if not folder:
        pytest.skip('MMWAVE_DATA does not name the folder of real labelled images')
    return Path(folder)
