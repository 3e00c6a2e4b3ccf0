"""Signs of life that the processes of a run exchange, beside their collective operations.

A process that was stopped, or whose machine cannot be reached, gives none; one that evaluates,
saves or compiles does.
"""

import json
import os
import socket
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

import torch

from mmwave.errors import printable

_KEY = 'mmwave/beats'
_MOST = 64  # processes that all watch each other; of more, the first watches and is watched
_STORE_TIMEOUT = timedelta(seconds=10)


class Store(Protocol):
    """What is used of torch's stores."""

    def set(self, key: str, value: str) -> Any: ...
    def get(self, key: str) -> bytes: ...
    def check(self, keys: list[str]) -> bool: ...


class Peer(NamedTuple):
    """Another process.

    Attributes:
        rank: its number.
        silent: seconds since its last sign of life, in the time of this process.
        state: what it said of itself, empty before its first sign.
    """

    rank: int
    silent: float
    state: Mapping[str, Any]

    def __str__(self) -> str:
        if not self.state:
            return f'process {self.rank}'
        return f'process {self.rank} ({printable(self.state["host"])}, pid {self.state["pid"]})'


class Beats:
    """The signs of life of this process and of those that it watches.

    Args:
        store: that all processes of the run reach.
        rank: of this process.
        world_size: number of processes.
    """

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        self._store = store
        self._rank = rank
        everyone = range(world_size) if world_size <= _MOST or rank == 0 else range(1)
        self._seen: dict[int, bytes] = {other: b'' for other in everyone if other != rank}
        self._silent = dict.fromkeys(self._seen, 0.0)
        self._count = 0

    def send(self, **state: Any) -> None:
        """Tell the others that this process lives, and what it does.

        Raises:
            RuntimeError: where the store cannot be reached.
        """
        self._count += 1
        me = dict(count=self._count, host=socket.gethostname(), pid=os.getpid(), **state)
        self._store.set(f'{_KEY}/{self._rank}', json.dumps(me))

    def leave(self) -> None:
        """Tell the others that this process is done and will give no more signs."""
        self.send(done=True)

    def look(self, elapsed: float) -> None:
        """Look for new signs of the others.

        Args:
            elapsed: seconds that this process was running since it last looked. Whoever slept as
                well, since the whole run was stopped for a while, has not been silent.
        """
        for rank, before in self._seen.items():
            try:
                sign = self._sign(rank)
            except RuntimeError:  # of torch's stores: whoever hosts it does not answer
                sign = before
            if sign != before or self._state(rank).get('done'):
                self._seen[rank], self._silent[rank] = sign, 0.0
            else:
                self._silent[rank] += elapsed

    def peers(self) -> list[Peer]:
        """Return the processes that are watched, the most silent first."""
        peers = [Peer(rank, self._silent[rank], self._state(rank)) for rank in self._seen]
        return sorted(peers, key=lambda peer: -peer.silent)

    def _sign(self, rank: int) -> bytes:
        key = f'{_KEY}/{rank}'
        return self._store.get(key) if self._store.check([key]) else b''

    def _state(self, rank: int) -> Mapping[str, Any]:
        return json.loads(self._seen[rank] or b'{}')


def group_beats() -> Beats | None:
    """Return those of torch's default process group, None where a run has one process."""
    group = torch.distributed
    if not group.is_available() or not group.is_initialized() or group.get_world_size() == 1:
        return None
    # A connection of its own: operations on that of the group would wait for each other.
    store = group.distributed_c10d._get_default_store().clone()
    store.set_timeout(_STORE_TIMEOUT)
    return Beats(store, group.get_rank(), group.get_world_size())
