"""Errors of torch's data loaders in one line: which workers, at which images, and what to do."""

import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from torch.utils.data import DataLoader

from mmwave.errors import UserError, printable, printable_path

from .ending import UnavailableError
from .notes import Note, Notes
from .shared_memory import FOLDER, REMEDY, SharedMemoryError, free_and_total, size_of

_TIMED_OUT = re.compile(r'DataLoader timed out after ([\d.]+) seconds')
_LEFT = re.compile(r'DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)', re.DOTALL)
_SIGNAL = re.compile(r'is killed by signal: ([^.\n]*)')
_SHARED = re.compile(r'shared memory|/torch_\d+|Bus error')
_MOST = 8  # workers that are named

Loaders = Mapping[str, tuple[DataLoader, Notes]]
"""The open data loaders with their notes by name, ``'train'``."""


def loader_error(error: BaseException, loaders: Loaders) -> UserError | None:
    """Return the error that a user is to see for one of torch's, None for others.

    Args:
        error: raised while a loader was waited for.
        loaders: of the run.
    """
    text = str(error)
    timed_out, left = _TIMED_OUT.search(text), _LEFT.search(text)
    if timed_out is not None:
        return _hanging(float(timed_out[1]), _in_use(error, loaders))
    if left is not None:
        return _dead({int(pid) for pid in left[1].split(',')}, left[2], loaders)
    if isinstance(error, OSError | EOFError):
        # Of a worker that has sent a batch and left before it was received.
        pids = {note.pid for _, notes in loaders.values() for note in notes.all() if note.failure}
        return _dead(pids, '', loaders) if pids else None
    if isinstance(error, RuntimeError) and _SHARED.search(text) and 'shared memory' in text:
        reason = next(line for line in text.splitlines() if 'shared memory' in line)
        return _full('a batch cannot be sent', reason)
    return None


def _hanging(seconds: float, loaders: Loaders) -> UserError:
    name = ' or '.join(f'{split}_dataloader' for split in loaders) or 'a data loader'
    at = [
        f'worker {number} (pid {note.pid}) at {printable_path(note.image or "its first sample")}'
        for loader, notes in loaders.values()
        for number, note in enumerate(notes.all()[1:])
        if note.pid
    ]
    more = f', and {len(at) - _MOST} more' if len(at) > _MOST else ''
    return UnavailableError(
        f'{name}: no batch came within {seconds:g} s ({name}.timeout): {", ".join(at[:_MOST])}'
        f'{more}; look whether the disk or server of these files answers, and what the transforms '
        'do; a larger timeout waits longer'
    )


def _dead(pids: set[int], how: str, loaders: Loaders) -> UserError:
    found = [
        (f'{split}_dataloader: worker {number} (pid {note.pid})', note)
        for split, (_, notes) in loaders.items()
        for number, note in enumerate(notes.all()[1:])
        if note.pid in pids
    ]
    who, note = found[0] if found else (f'data loader worker (pid {min(pids)})', Note(0, 0, '', ''))
    signal = _SIGNAL.search(how)
    died = f'was killed by signal {printable(signal[1].strip())}' if signal else 'ended'
    if _SHARED.search(note.failure) or (signal and 'Bus error' in signal[1]):
        return _full(f'{who} {died}', note.failure)
    last = f'; its last image: {printable_path(note.image)}' if note.image else ''
    if note.failure:
        return UnavailableError(f'{who} could not send its batch: {printable(note.failure)}{last}')
    if signal and 'Killed' in signal[1]:
        return UnavailableError(
            f'{who} {died}, as the kernel does where memory is short{last}; lower num_workers, '
            'prefetch_factor or batch_size, or give the job more memory'
        )
    return UnavailableError(
        f'{who} {died} unexpectedly{last}; num_workers=0 shows where, or memory is short: lower '
        'num_workers'
    )


def _full(what: str, reason: str) -> UserError:
    space = free_and_total()
    free = f': {FOLDER} has {size_of(space[0])} free of {size_of(space[1])}' if space else ''
    detail = f' ({printable(reason)})' if reason else ''
    return SharedMemoryError(f'{what}{free}{detail}; shared memory is too small: {REMEDY}')


def _in_use(error: BaseException, loaders: Loaders) -> Loaders:
    """Return the loader whose iterator raised the error, all with workers where none is found."""
    datasets = set(map(id, _datasets(error.__traceback__)))
    found = {name: pair for name, pair in loaders.items() if id(pair[0].dataset) in datasets}
    return found or {name: pair for name, pair in loaders.items() if pair[0].num_workers}


def _datasets(trace: TracebackType | None) -> list[Any]:
    found = []
    while trace is not None:
        iterator = trace.tb_frame.f_locals.get('self')
        if hasattr(iterator, '_dataset'):
            found.append(iterator._dataset)
        trace = trace.tb_next
    return found
