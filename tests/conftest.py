"""One thread a process, no kernels but those a test builds, and where the repository is."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mmwave.checkpoint import register_safe_loader
from mmwave.ops import _linear, extension
from tests.contracts import ROOT
from tests.loaders import loader_restored

# No kernel that was built on this machine, by other tests either: the tests run what everyone has,
# and build their own.
os.environ['TORCH_EXTENSIONS_DIR'] = os.path.join(
    tempfile.gettempdir(), f'mmwave-tests-none-{os.getpid()}'
)
# The tests' products are small: run them as large ones are.
_linear.MIN_ONEDNN_MACS = 0
torch.set_num_threads(int(os.environ.get('OMP_NUM_THREADS', '1')))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long ones first."""
    items.sort(key=lambda item: item.get_closest_marker('long') is None)


@pytest.fixture
def root() -> Path:
    """The top folder of the repository."""
    return ROOT


@pytest.fixture(scope='module')
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The kernels in C++, compiled for the tests that ask: others run what a user has first."""
    if shutil.which((os.environ.get('CXX') or 'c++').split()[0]) is None:
        pytest.skip('no C++ compiler: the kernels cannot be built here')
    before, extension._ready = extension._ready, None
    extension._library.cache_clear()
    shared = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        shared = shared.parent  # of all workers: one compiles while the others wait
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TORCH_EXTENSIONS_DIR', str(shared / 'extensions'))
        with open(shared / 'extensions.lock', 'w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            extension.build()
        assert extension.is_built()
        yield
    extension._library.cache_clear()
    extension._ready = before


@pytest.fixture
def multiplying(kernels: None) -> None:
    """Kernels that multiply bfloat16, which not every processor has a use for."""
    if not torch.ops.mmwave_cpp.multiplies():
        pytest.skip('this CPU lacks AVX512-BF16, or has AMX, where oneDNN is faster')


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Work is divided."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def safe_loader() -> Iterator[None]:
    """mmengine reads checkpoints as the tools have it, in this test alone."""
    with loader_restored():
        register_safe_loader()
        yield


@pytest.fixture
def own_loader() -> Iterator[None]:
    """A test may register the safe loader; no other sees it."""
    with loader_restored():
        yield
