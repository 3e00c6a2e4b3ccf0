"""The repository's configs, each counted once for all tests."""

import pytest

from mmwave.zoo import Zoo
from tests.contracts import ROOT


@pytest.fixture(scope='session')
def repository() -> Zoo:
    """The tables of this repository."""
    return Zoo(ROOT)
