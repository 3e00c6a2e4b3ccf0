"""What goes wrong in a run, as the environment variable FAULT says: imported by the run itself."""

import errno
import fnmatch
import itertools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, METRICS, TRANSFORMS
from mmengine.runner import Runner

from mmwave.checkpoint import writing


def _die(_: Runner) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stop(_: Runner) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _leave(_: Runner) -> None:
    os._exit(0)


def _raise(_: Runner) -> None:
    raise RuntimeError('injected')


def _terminate(_: Runner) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _terminate_launcher(_: Runner) -> None:
    os.kill(os.getppid(), signal.SIGTERM)


def _user_signal_launcher(_: Runner) -> None:
    os.kill(os.getppid(), signal.SIGUSR1)


def _user_signal(_: Runner) -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


def _out_of_memory(_: Runner) -> None:
    raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.')


def _nan_weights(runner: Runner) -> None:
    with torch.no_grad():
        next(runner.model.parameters()).fill_(float('nan'))


def _kill_within_a_write(_: Runner) -> None:
    """From now on, where half of the file ``name`` is written, the ``nth`` time (1 by default)."""
    fault = json.loads(os.environ['FAULT'])
    count = itertools.count(1)
    new_part = writing._new_part

    def part_of(target: Path, mode: int | None) -> tuple[Path, Any]:
        part, file = new_part(target, mode)
        if fnmatch.fnmatch(target.name, fault['name']) and next(count) == fault.get('nth', 1):
            file.write(b'half of it' * 1000)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return part, file

    writing._new_part = part_of


def _full_disk(_: Runner) -> None:
    """From now on no file ``name`` can be written."""
    fault = json.loads(os.environ['FAULT'])
    new_part = writing._new_part

    def part_of(target: Path, mode: int | None) -> tuple[Path, Any]:
        if fnmatch.fnmatch(target.name, fault['name']):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return new_part(target, mode)

    writing._new_part = part_of


def _sleep(_: Runner) -> None:
    time.sleep(3600)


def _resident() -> int:
    """Return the memory of this process, in bytes."""
    return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')


KINDS = {
    'kill': _die,
    'stop': _stop,
    'exit': _leave,
    'raise': _raise,
    'term': _terminate,
    'term-launcher': _terminate_launcher,
    'usr1': _user_signal,
    'usr1-launcher': _user_signal_launcher,
    'oom': _out_of_memory,
    'nan-weights': _nan_weights,
    'sleep': _sleep,
    'midwrite': _kill_within_a_write,
    'full': _full_disk,
}


@TRANSFORMS.register_module()
class HangingTransform:
    """Sleep in one process for every sample from number ``after`` on."""

    def __init__(self, after: int = 0, seconds: float = 3600) -> None:
        self._to_go = after
        self._seconds = seconds

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        self._to_go -= 1
        if self._to_go < 0:
            time.sleep(self._seconds)
        return results


@METRICS.register_module()
class SlowMetric(BaseMetric):
    """A metric that takes the first process as long as the variable SLOW_METRIC says, seconds."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list[int]) -> dict[str, float]:
        time.sleep(float(os.environ.get('SLOW_METRIC', '0')))
        return {'slow': 1.0}


@HOOKS.register_module()
class FaultHook(Hook):
    """Have a fault happen before one step, once a run: a resumed run passes the step unharmed.

    FAULT is JSON: ``{"kind": ..., "iter": ..., "rank": ...}``; the file ``FAULT_LOG``, where the
    variable is set, receives rank, iteration and resident memory in bytes before every step.
    """

    # After the hooks that prepare a step.
    priority = 'VERY_LOW'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        log = os.environ.get('FAULT_LOG')
        if log:
            with Path(log).open('a') as file:
                file.write(f'{get_rank()} {runner.iter} {_resident()}\n')
        fault = json.loads(os.environ.get('FAULT') or '{}')
        if not fault or fault['iter'] != runner.iter or fault.get('rank', 0) != get_rank():
            return
        KINDS[fault['kind']](runner)
