"""Shared memory against the batches that are sent in it, by a made-up /dev/shm."""

import os
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmwave.engine.watching import shared_memory
from mmwave.engine.watching.shared_memory import (
    Need,
    SharedMemoryError,
    free_and_total,
    judge,
    need_of,
    shared_bytes,
    size_of,
)

PAGE = 4096


class Data:
    """Samples of so many pages, which take a random number each."""

    def __init__(self, *pages):
        self.pages = pages

    def __len__(self):
        return len(self.pages)

    def __getitem__(self, index):
        random.random(), np.random.rand(), torch.rand(1)
        return dict(inputs=torch.zeros(self.pages[index] * PAGE, dtype=torch.uint8))


@pytest.fixture
def space(monkeypatch):
    """A /dev/shm of 100 pages, of which 60 are free."""
    stats = SimpleNamespace(f_bavail=60, f_frsize=PAGE, f_blocks=100)
    monkeypatch.setattr(os, 'statvfs', lambda path: stats)
    return stats


def test_a_sample_is_its_tensors_in_whole_pages():
    whole = torch.zeros(3 * PAGE, dtype=torch.uint8)
    sample = dict(
        inputs=whole[:10],  # the storage is sent
        again=[whole[10:]],
        label=SimpleNamespace(value=torch.zeros(1)),
        array=np.zeros(10 * PAGE),  # goes through the pipe
    )
    assert shared_bytes(sample) == 4 * PAGE


def test_a_sample_of_a_data_set_in_one_tensor_is_its_own_part():
    images = torch.zeros(100, PAGE, dtype=torch.uint8)
    assert shared_bytes(dict(inputs=images[3])) == PAGE
    assert shared_bytes(dict(inputs=images[:1].expand(9, PAGE))) == 9 * PAGE


class Opened(Data):
    """Samples of a file that each process must open for itself."""

    file = None

    def __getitem__(self, index):
        self.file = self.file or os.getpid()
        assert self.file == os.getpid()
        return super().__getitem__(index)


def test_nothing_is_opened_that_workers_would_share(space):
    loader = DataLoader(Opened(1, 1), num_workers=1)
    assert need_of([loader]) is not None
    assert loader.dataset.file is None
    assert len(list(loader)) == 2


def test_what_loaders_take(space):
    loader = DataLoader(Data(2, 3, 9), batch_size=4, num_workers=2, prefetch_factor=3)
    need = need_of([loader, DataLoader(Data(5), batch_size=1)])
    assert need[1:3] == (60 * PAGE, 100 * PAGE) == free_and_total()
    assert need.batch == 4 * 2 * PAGE
    assert need.batches == (2 * 3 + 1) * 4 * 3 * PAGE
    assert need_of([DataLoader(Data(5), batch_size=1)]) is None  # nothing is sent
    both = need_of([loader, DataLoader(Data(1), batch_size=1, num_workers=1)])
    assert both.batches == need.batches + 3 * PAGE


def test_measuring_leaves_random_numbers_alone(space):
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert need_of([DataLoader(Data(1, 1), num_workers=1)]) is not None
    assert states[0] == random.getstate()
    assert states[1] == np.random.get_state()[1].tolist()
    assert states[2] == torch.get_rng_state().tolist()


def test_what_cannot_be_measured_is_not_judged(space, monkeypatch):
    class Broken(Data):
        def __getitem__(self, index):
            raise KeyError(index)

    assert need_of([DataLoader(Broken(1), num_workers=1)]) is None

    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, 'statvfs', missing)
    assert need_of([DataLoader(Data(1), num_workers=1)]) is None
    assert judge([None, None]) == []


def test_processes_of_a_machine_are_added_up():
    one = Need('a', free=50_000_000, total=64_000_000, batch=1_000_000, batches=20_000_000)
    assert judge([one, one]) == []
    (line,) = judge([one, one, one, one._replace(host='b'), None])
    assert line.startswith('/dev/shm of a has 50.0 MB free of 64.0 MB; the data loaders of 3 proc')
    assert 'may take 60.0 MB' in line
    assert all(word in line for word in ('--shm-size', '--ipc=host', 'num_workers'))


def test_room_for_not_one_batch_is_an_error():
    one = Need('a', free=500_000, total=64_000_000, batch=1_000_000, batches=20_000_000)
    with pytest.raises(SharedMemoryError, match=r'a has 500\.0 kB free .*one batch takes 1\.0 MB'):
        judge([None, one])
    assert judge([one._replace(batches=1, batch=500_000)]) == []


def test_sizes():
    assert [size_of(n) for n in (4096, 1_000_000, 2_500_000_000)] == [
        '4.1 kB',
        '1.0 MB',
        '2,500.0 MB',
    ]
    assert shared_memory.FOLDER == '/dev/shm'
