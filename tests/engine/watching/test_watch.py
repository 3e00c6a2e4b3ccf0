"""What ends a run that does not go on, and what is said of one that may."""

import logging
import re
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from mmwave.engine.watching import watch as module
from mmwave.engine.watching.beats import Beats
from mmwave.engine.watching.notes import Note
from mmwave.engine.watching.watch import Watch
from tests.engine.watching.test_beats import Store


@pytest.fixture
def said(caplog):
    """The warnings."""
    caplog.set_level(logging.INFO, logger='watch-test')
    return lambda: [record.getMessage() for record in caplog.records]


def make(seconds=10, beats=None):
    ended = []
    return Watch(seconds, beats, logging.getLogger('watch-test'), ended.append), ended


def test_a_long_phase_is_told_once_and_goes_on(said):
    watch, ended = make()
    watch.progress('validation')
    for _ in range(20):
        watch.look(2)
    (text,) = said()
    assert text.startswith('validation: nothing was finished for 10 s (env_cfg.dist_cfg.timeout)')
    assert re.search(r'its main thread is in \w+, /\S+\.py:\d+$', text)
    assert not ended
    watch.progress('training step 2')
    for _ in range(20):
        watch.look(2)
    assert len(said()) == 2


def test_what_goes_on_is_not_told(said):
    watch, ended = make()
    for step in range(20):
        watch.progress(f'training step {step}')
        watch.look(9)
    assert not said()
    assert not ended


@pytest.fixture
def loading(monkeypatch):
    """The main thread waits for a batch; the number of images begun can be set."""
    monkeypatch.setattr(module, '_loader_of', lambda frame: True)
    note = SimpleNamespace(count=1)
    note.all = lambda: [Note(0, note.count, '/data/a\nb.jpg', '')]
    return note


def test_a_loader_in_this_process_ends_the_run(said, loading):
    watch, ended = make()
    watch.notes = loading
    for _ in range(20):
        watch.look(2)
    (line,) = ended
    assert line.startswith(
        'no image was loaded for 10 s (env_cfg.dist_cfg.timeout): it is at /data'
    )
    assert r'a\nb.jpg' in line
    assert not said()


def test_a_slow_loader_goes_on(said, loading):
    watch, ended = make()
    watch.notes = loading
    for _ in range(20):
        loading.count += 1
        watch.look(9)
    assert not ended
    assert not said()


@pytest.mark.parametrize('notes', [None, 'without images'])
def test_of_other_loaders_is_told(said, loading, notes):
    """With workers their own timeout ends the run; data sets without paths say nothing."""
    watch, ended = make()
    loading.count = 0
    watch.notes = loading if notes else None
    for _ in range(20):
        watch.look(2)
    assert not ended
    assert len(said()) == 1


def test_a_thread_that_waits_for_a_loader_is_recognised():
    from torch.utils.data import DataLoader

    found = []

    class Data:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            found.append(module._loader_of(sys._getframe()))
            return 0

    assert not module._loader_of(sys._getframe())
    next(iter(DataLoader(Data())))
    assert found == [True]


def test_a_silent_process_is_told_and_ends_the_run(said):
    store = Store()
    watch, ended = make(beats=Beats(store, 0, 2))
    other = Beats(store, 1, 2)
    other.send(doing='training step 5')
    for _ in range(4):
        watch.progress('')
        watch.look(2)
    (text,) = said()
    assert text.startswith('process 1 (')
    assert text.endswith('for 6 s; the run ends after 10 s (env_cfg.dist_cfg.timeout)')
    assert not ended
    while not ended:
        watch.progress('')
        watch.look(2)
    assert 'given no sign of life for 10 s (env_cfg.dist_cfg.timeout=10): stopped, dead' in ended[0]
    assert ended[0].endswith('it was last at training step 5')
    assert len(said()) == 1


def test_a_process_that_falls_silent_again_is_told_again(said):
    store = Store()
    watch, ended = make(beats=Beats(store, 0, 2))
    other = Beats(store, 1, 2)
    for _ in range(2):
        other.send(doing='training step 5')
        for _ in range(5):
            watch.progress('')
            watch.look(2)
    assert len(said()) == 2
    assert not ended


def test_of_a_run_that_was_stopped_as_a_whole_nobody_was_late(monkeypatch):
    watch, _ = make()
    looks, times, answers = [], iter([0.0, 1.0, 1000.0]), iter([False, False, True])
    monkeypatch.setattr(watch, 'look', looks.append)
    monkeypatch.setattr(module, 'time', SimpleNamespace(monotonic=lambda: next(times)))
    monkeypatch.setattr(watch, '_stop', SimpleNamespace(wait=lambda pause: next(answers)))
    watch._run()
    assert looks == [0.0, 1.0, 2 * watch._pause]


def test_of_processes_that_wait_for_each_other_the_late_one_is_named():
    store = Store()
    watch, _ = make(seconds=5, beats=Beats(store, 0, 2))
    other, _ = make(seconds=100, beats=Beats(store, 1, 2))
    other.progress('validation')
    for _ in range(10):
        other.look(2)
        watch.look(2)
    line = watch.missing()
    assert line.startswith('processes wait for each other: process 1 (')
    assert re.search(r'has been at validation for 1\d s \(look, /\S+/watch.py:\d+\)$', line)
    lonely, _ = make()
    assert lonely.missing() is None


@pytest.mark.parametrize('done', [True, False])
def test_the_thread_says_goodbye_where_all_went_well(done):
    store = Store()
    watch, ended = make(seconds=1, beats=Beats(store, 0, 2))
    other = Beats(store, 1, 2)
    watch.start()
    for _ in range(12):
        watch.progress('')
        other.send()
        time.sleep(0.05)
    watch.stop(done=done)
    assert not ended
    assert (b'"done": true' in store.values['mmwave/beats/0']) == done
    assert 'mmwave-watch' not in {thread.name for thread in threading.enumerate()}
