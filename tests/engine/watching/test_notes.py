"""What workers say of themselves, to the process that waits for them."""

import copy
import multiprocessing
import os
import pickle
import time
from types import SimpleNamespace

import pytest
from torch.utils.data import DataLoader

from mmwave.engine.watching.notes import NoteImage, Notes, take_notes


class Data:
    """Like mmengine's data sets; it is no BaseDataset."""

    def __init__(self, *steps):
        self.pipeline = SimpleNamespace(transforms=list(steps))

    def __len__(self):
        return 6

    def __getitem__(self, index):
        sample = dict(img_path=f'/data/{index}.jpg')
        for step in self.pipeline.transforms:
            sample = step(sample)
        return sample


def test_the_image_is_noted_before_it_is_opened():
    seen = []
    data = Data(lambda sample: seen.append(notes.all()[0].image) or sample)
    notes = take_notes(DataLoader(data))
    data[3], data[1]
    assert seen == ['/data/3.jpg', '/data/1.jpg']
    assert notes.all()[0].count == 2


def test_taking_notes_twice_leaves_one_note():
    data = Data()
    take_notes(DataLoader(data))
    notes = take_notes(DataLoader(data))
    data[2]
    assert [type(step) for step in data.pipeline.transforms] == [NoteImage]
    assert notes.all()[0].image == '/data/2.jpg'


def test_workers_have_a_part_each_and_their_own_start():
    started = multiprocessing.get_context('fork').Array('i', 2)
    loader = DataLoader(
        Data(),
        num_workers=2,
        batch_size=None,
        worker_init_fn=lambda number: started.__setitem__(number, 1),
        multiprocessing_context='fork',
    )
    notes = take_notes(loader)
    batches = iter(loader)
    pids = {worker.pid for worker in batches._workers}
    list(batches)
    main, *workers = notes.all()
    assert main.pid == 0
    assert list(started) == [1, 1]
    assert {note.pid for note in workers} == pids
    assert [note.count for note in workers] == [3, 3]
    assert [note.image for note in workers] == ['/data/4.jpg', '/data/5.jpg']


def test_a_batch_that_cannot_be_sent_ends_its_worker():
    """Python prints the error and torch waits for ever."""

    class Unsent:
        def __reduce__(self):
            raise RuntimeError('unable to allocate shared memory(shm)')

    loader = DataLoader(
        Data(lambda sample: Unsent()),
        num_workers=1,
        batch_size=None,
        multiprocessing_context='fork',
        timeout=30,
    )
    notes = take_notes(loader)
    start = time.monotonic()
    with pytest.raises(RuntimeError, match='exited unexpectedly'):
        next(iter(loader))
    assert time.monotonic() - start < 15
    assert notes.all()[1].failure == 'RuntimeError: unable to allocate shared memory(shm)'


def test_long_paths_are_cut_and_odd_ones_survive():
    notes = Notes(0)
    notes.read_image('x' * 5000)
    assert notes.all()[0].image == 'x' * 1000
    notes.read_image('\udcff/ä')
    assert notes.all()[0].image == '?/ä'
    notes.begin()
    assert notes.all()[0].pid == os.getpid()


def test_copies_and_other_kinds_of_processes_are_apart():
    notes = Notes(3)
    pickled = pickle.dumps(NoteImage(notes))
    for other in (copy.deepcopy(NoteImage(notes)), pickle.loads(pickled)):  # noqa: S301
        other(dict(img_path='a'))
    assert all(note.count == 0 for note in notes.all())
    assert len(notes) == 4
    NoteImage(notes)('no dict')
    assert notes.all()[0].image == ''
