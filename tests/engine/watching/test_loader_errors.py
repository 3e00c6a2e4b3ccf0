"""torch's errors of data loaders as a user reads them."""

import pytest
from torch.utils.data import DataLoader

from mmwave.engine.exit_codes import UNAVAILABLE
from mmwave.engine.watching import loader_errors
from mmwave.engine.watching.ending import UnavailableError
from mmwave.engine.watching.loader_errors import loader_error
from mmwave.engine.watching.notes import Note
from mmwave.engine.watching.shared_memory import SharedMemoryError


class Known:
    def __init__(self, *notes):
        self.notes = notes

    def all(self):
        return [Note(0, 0, '', ''), *self.notes]


def one_loader(*notes):
    return {'train': (DataLoader([0], num_workers=2), Known(*notes))}


@pytest.fixture
def loaders():
    return one_loader(Note(11, 5, '/data/a\n.jpg', ''), Note(12, 0, '', ''))


def test_a_hanging_loader(loaders):
    error = loader_error(RuntimeError('DataLoader timed out after 300 seconds'), loaders)
    assert isinstance(error, UnavailableError)
    assert error.exit_code == UNAVAILABLE
    text = str(error)
    assert text.startswith(
        'train_dataloader: no batch came within 300 s (train_dataloader.timeout): '
        r'worker 0 (pid 11) at /data/a\n.jpg, worker 1 (pid 12) at its first sample; look'
    )


def test_the_loader_that_raised_is_named(loaders):
    class Iterator:
        def __init__(self, dataset):
            self._dataset = dataset

        def __next__(self):
            raise RuntimeError('DataLoader timed out after 300 seconds')

    loaders['val'] = (DataLoader([1], num_workers=1), Known(Note(13, 0, '', '')))
    with pytest.raises(RuntimeError) as caught:
        next(Iterator(loaders['val'][0].dataset))
    text = str(loader_error(caught.value, loaders))
    assert text.startswith('val_dataloader: no batch')
    assert 'pid 11' not in text


def test_many_workers_are_counted():
    error = RuntimeError('DataLoader timed out after 1.0 seconds')
    text = str(loader_error(error, one_loader(*(Note(9 + n, 1, 'a', '') for n in range(20)))))
    assert text.count('(pid ') == 8
    assert 'and 12 more' in text


@pytest.mark.parametrize(
    ('signal', 'kind', 'words'),
    [
        ('Bus error. It is possible that', SharedMemoryError, ('--shm-size', 'num_workers')),
        ('Killed. ', UnavailableError, ('memory', 'num_workers')),
        ('Segmentation fault. ', UnavailableError, ('num_workers=0',)),
    ],
)
def test_a_worker_that_a_signal_killed(loaders, signal, kind, words):
    error = RuntimeError(f'DataLoader worker (pid 11) is killed by signal: {signal}')
    found = loader_error(error, loaders)
    assert type(found) is kind
    text = str(found)
    name = signal.partition('.')[0]
    assert text.startswith(f'train_dataloader: worker 0 (pid 11) was killed by signal {name}')
    assert all(word in text for word in words)


def test_a_worker_that_could_not_send(monkeypatch):
    monkeypatch.setattr(loader_errors, 'free_and_total', lambda: (1_000_000, 64_000_000))
    reason = 'RuntimeError: unable to allocate shared memory(shm) for file </torch_1>'
    loaders = one_loader(Note(11, 5, '/data/a.jpg', reason))
    gone = 'DataLoader worker (pid(s) 11, 12) exited unexpectedly'
    # A batch that it had sent before cannot be received either.
    for error in (RuntimeError(gone), ConnectionResetError('reset'), EOFError()):
        text = str(loader_error(error, loaders))
        assert text.startswith('train_dataloader: worker 0 (pid 11) ended: /dev/shm has 1.0 MB fr')
        assert reason in text
        assert '--shm-size' in text
    other = one_loader(Note(11, 5, '/data/a.jpg', 'TypeError: cannot pickle'))
    text = str(loader_error(RuntimeError(gone), other))
    assert 'could not send its batch: TypeError: cannot pickle; its last image: /data/a' in text


def test_a_worker_that_could_not_collate(loaders):
    text = 'Caught RuntimeError in worker\nOriginal\nRuntimeError: unable to allocate shared memory'
    found = loader_error(RuntimeError(text), loaders)
    assert type(found) is SharedMemoryError
    assert 'RuntimeError: unable to allocate shared memory' in str(found)
    assert '\n' not in str(found)


def test_of_unknown_workers(loaders):
    error = RuntimeError('DataLoader worker (pid 99) is killed by signal: Killed. ')
    assert str(loader_error(error, loaders)).startswith('data loader worker (pid 99) was killed')


@pytest.mark.parametrize(
    'error', [RuntimeError('size mismatch'), ValueError('x'), OSError('disk'), EOFError()]
)
def test_other_errors_stay(loaders, error):
    assert loader_error(error, loaders) is None
