"""Signs of life between processes, over a store of this test."""

import json

import pytest

from mmwave.engine.watching.beats import Beats


class Store:
    """Answers like torch's, while it is there."""

    def __init__(self):
        self.values = {}
        self.reachable = True

    def set(self, key, value):
        self._answer()
        self.values[key] = value.encode()

    def get(self, key):
        self._answer()
        return self.values[key]

    def check(self, keys):
        self._answer()
        return all(key in self.values for key in keys)

    def _answer(self):
        if not self.reachable:
            raise RuntimeError('timed out')


@pytest.fixture
def store():
    return Store()


def test_who_lives_is_not_silent(store):
    first, second = Beats(store, 0, 2), Beats(store, 1, 2)
    for _ in range(3):
        second.send(doing='evaluation')
        first.look(5)
    (peer,) = first.peers()
    assert (peer.rank, peer.silent, peer.state['doing']) == (1, 0, 'evaluation')
    for _ in range(3):
        first.look(5)
    (peer,) = first.peers()
    assert peer.silent == 15
    assert str(peer) == f'process 1 ({peer.state["host"]}, pid {peer.state["pid"]})'


def test_who_never_came_is_silent(store):
    beats = Beats(store, 0, 3)
    Beats(store, 2, 3).send()
    beats.look(1)
    beats.look(1)
    assert [(peer.rank, peer.silent) for peer in beats.peers()] == [(1, 2), (2, 1)]
    assert str(beats.peers()[0]) == 'process 1'


def test_who_is_done_is_not_missed(store):
    first, second = Beats(store, 0, 2), Beats(store, 1, 2)
    second.leave()
    for _ in range(5):
        first.look(100)
    assert first.peers()[0].silent == 0


def test_a_store_that_does_not_answer_is_silence(store):
    first, second = Beats(store, 0, 2), Beats(store, 1, 2)
    second.send()
    first.look(1)
    store.reachable = False
    first.look(4)
    assert first.peers()[0].silent == 4
    with pytest.raises(RuntimeError):
        first.send()


def test_of_many_processes_the_first_watches_all(store):
    assert len(Beats(store, 0, 1000).peers()) == 999
    assert [peer.rank for peer in Beats(store, 7, 1000).peers()] == [0]
    assert len(Beats(store, 7, 8).peers()) == 7


def test_signs_are_json(store):
    Beats(store, 1, 2).send(doing='x', stalled=1.5)
    ((key, value),) = store.values.items()
    assert key.endswith('/1')
    assert json.loads(value)['stalled'] == 1.5
