"""Start the processes of a run as torchrun does, and say in a few lines why they ended.

The arguments are torchrun's: ``python -m mmwave.apis.launch --nproc-per-node 2 SCRIPT ARGS...``.
Where all goes well nothing is printed. Else a summary names the process that failed first with its
exit code and its reason, and the exit code is that of this process: 2 for a mistake of the user's,
75 where all left because they were asked to, 128 + N where signal N killed it.
"""

import json
import logging
import os
import os.path as osp
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from mmwave.engine.exit_codes import PREEMPTED, UNAVAILABLE, USER_ERROR
from mmwave.errors import printable, printable_path

from .failures import port_in_use

_QUIET = re.compile(
    r'failed \(exitcode: |Sending process \d+ closing signal|Received \d+ death signal'
)
_KILLED = {
    signal.SIGKILL: 'most often the machine was out of memory: set num_workers or the batch size '
    'lower; `dmesg` tells',
    signal.SIGBUS: 'most often the shared memory in /dev/shm did not suffice: give a container '
    'more (docker run --shm-size=16g or --ipc=host), or set num_workers lower',
    signal.SIGSEGV: 'a crash in compiled code: PYTHONFAULTHANDLER=1 in the environment tells where',
    signal.SIGABRT: 'compiled code gave up (an assertion, or a timeout of NCCL): what it printed '
    'is above',
}


class Ended(NamedTuple):
    """How one process ended.

    Attributes:
        rank: of all processes of the run.
        code: exit code; negative: the signal.
        kind: of :class:`mmwave.apis.failures.Failure`; None where it left no reason.
        reason: in one line.
        time: when, in seconds.
    """

    rank: int
    code: int
    kind: str | None
    reason: str
    time: float

    @property
    def is_cause(self) -> bool:
        """Whether it ended by itself, not because another one did."""
        return self.kind != 'peer' and self.code != -signal.SIGTERM

    @property
    def exit_code(self) -> int:
        return 128 - self.code if self.code < 0 else self.code


def launch(arguments: Sequence[str]) -> int:
    """Run the processes to their end.

    Args:
        arguments: of torchrun.

    Returns:
        The exit code.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    from mmwave.engine.watching.nodes import missing_nodes_named

    _silence()
    killed = oom_kills()
    with tempfile.TemporaryDirectory(prefix='mmwave_launch_', ignore_cleanup_errors=True) as folder:
        try:
            args = parse_args(['--log-dir', folder, *arguments])
            _pass_on_signals(args)
            with missing_nodes_named(*_meeting(args)):
                run(args)
        except ChildFailedError as error:
            ended = [
                _ended(rank, failure.exitcode, failure.error_file_data, failure.timestamp)
                for rank, failure in error.failures.items()
            ]
            return summarize(ended, out_of_memory=_more(killed, oom_kills()))
        except SignalException as error:
            # torch has passed it on and waited; exit codes are not told.
            codes = [document['code'] for document in _documents(Path(folder))]
            if codes and all(code == PREEMPTED for code in codes):
                return PREEMPTED
            _say(f'the run was stopped by {signal.Signals(error.sigval).name}')
            return 128 + error.sigval
        except Exception as error:
            line = port_in_use(str(error))
            if line is None:
                raise
            _say(line)
            return USER_ERROR
    return 0


def _pass_on_signals(args: Any) -> None:
    """Have torchrun pass on SIGUSR1 too, which a scheduler may send to this process alone."""
    name = 'TORCHELASTIC_SIGNALS_TO_HANDLE'
    signals = os.environ.setdefault(name, 'SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1')
    if hasattr(args, 'signals_to_handle'):  # by which newer versions set the variable
        args.signals_to_handle = signals


def _meeting(args: Any) -> tuple[str, str, float]:
    """Return where the machines of a run meet, how many, and how many seconds they wait."""
    seconds = re.search(r'\btimeout=(\d+)', args.rdzv_conf)
    address = f'{args.master_addr}:{args.master_port}'
    return address, args.nnodes, float(seconds[1]) if seconds else 600.0


def summarize(ended: Sequence[Ended], *, out_of_memory: bool | None = None) -> int:
    """Print why processes failed, the cause first, and return the exit code for it.

    Args:
        ended: those that failed.
        out_of_memory: whether the kernel has killed a process for lack of memory meanwhile; None
            where that cannot be read.
    """
    ended = sorted(ended, key=lambda one: (one.time, one.rank))
    left = [one for one in ended if one.code == PREEMPTED]
    if left and not [one for one in ended if one.is_cause and one.code != PREEMPTED]:
        return PREEMPTED
    causes = [one for one in ended if one.is_cause and one.code != PREEMPTED]
    first = causes[0] if causes else ended[0]
    if first.code == UNAVAILABLE:  # torchrun kills a process that hangs, after the others have left
        causes = [one for one in causes if one.code != -signal.SIGKILL]
    if causes and all(one.kind == 'user' or one.code == UNAVAILABLE for one in causes):
        return first.exit_code  # the processes have said it, in one line
    reasons: dict[str, list[Ended]] = {}
    for one in causes or [one for one in ended if one.kind == 'peer'] or ended:
        reasons.setdefault(_reason(one, out_of_memory), []).append(one)
    named = {one.rank for ones in reasons.values() for one in ones}
    lines = [f'{_ranks([one.rank for one in ones])}: {why}' for why, ones in reasons.items()]
    rest = [one.rank for one in ended if one.rank not in named]
    if rest:
        ranks = _ranks(rest)
        lines.append(f'{ranks}: stopped, or lost the others, after {_ranks([first.rank])} failed')
    if not causes and all(one.kind == 'peer' for one in ended):
        lines.append(
            'the cause is not among these: another machine of the run, or a process that left '
            'without an error'
        )
    _say('\n  '.join([f'the run failed on {socket.gethostname()}:', *lines]))
    return first.exit_code


def oom_kills() -> dict[str, int]:
    """Return how many processes the kernel has killed for lack of memory, by what counts them.

    Returns:
        ``'group'``: in this process's control group, with its memory limit; ``'machine'``. What
        cannot be read is left out.
    """
    counts = {}
    for name, paths in (('group', _memory_files()), ('machine', [Path('/proc/vmstat')])):
        for path in paths:
            with suppress(OSError):
                found = re.search(r'^oom_kill (\d+)$', path.read_text(), re.MULTILINE)
                if found:
                    counts[name] = int(found[1])
                    break
    return counts


def _memory_files() -> Iterator[Path]:
    """Yield where the control group of this process counts what it killed, versions 2 and 1."""
    root = Path('/sys/fs/cgroup')
    with suppress(OSError):
        for line in Path('/proc/self/cgroup').read_text().splitlines():
            _, controllers, group = line.split(':', 2)
            if controllers == '':
                yield root / group.lstrip('/') / 'memory.events'
            elif 'memory' in controllers.split(','):
                yield root / 'memory' / group.lstrip('/') / 'memory.oom_control'
    # In a container the group may be the root of what is mounted.
    yield root / 'memory.events'
    yield root / 'memory/memory.oom_control'


def _more(before: dict[str, int], after: dict[str, int]) -> bool | None:
    """Return whether a counter has grown; None where there are none."""
    # The group's counts all of its processes that were killed, for whatever limit.
    for name in ('group', 'machine'):
        if name in before and name in after:
            return after[name] > before[name]
    return None


def _ended(rank: int, code: int, data: dict[str, Any], timestamp: float) -> Ended:
    """Convert what torch reports of a process and what the process left in its error file."""
    message = data.get('message')
    ours = message.get('mmwave') if isinstance(message, dict) else None
    if ours is not None and code > 0:
        kind, when = ours['kind'], ours['time']
        reason = '; '.join(part for part in (_without_advice(ours), ours['where']) if part)
        return Ended(rank, code, kind, reason if kind != 'left' else '', when)
    text = message.get('message', '') if isinstance(message, dict) else ''
    return Ended(rank, code, None, printable(text, 500), timestamp)


def _without_advice(ours: dict[str, Any]) -> str:
    what: str = ours['what']
    return what.partition('; lower ')[0] if ours['kind'] == 'memory' else what


def _reason(one: Ended, out_of_memory: bool | None) -> str:
    if one.code < 0:
        number = -one.code
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = 'no signal of this system'
        hint = _KILLED.get(number, '')
        if number == signal.SIGKILL and out_of_memory is not None:
            hint = (
                'the memory did not suffice, as the kernel has counted (oom_kill): set num_workers '
                'or the batch size lower, or give the run more memory'
                if out_of_memory
                else 'not by the kernel for lack of memory, which it would have counted: by a '
                'scheduler (its limit of memory or time), systemd-oomd or `kill -9`'
            )
        return f'killed by signal {number} ({name})' + (f': {hint}' if hint else '')
    return f'exit code {one.code}' + (f': {one.reason}' if one.reason else ', see above')


def _ranks(ranks: Sequence[int]) -> str:
    return f'rank {ranks[0]}' if len(ranks) == 1 else f'ranks {", ".join(map(str, sorted(ranks)))}'


def _documents(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what each process left in its error file, the exit code None where it left none."""
    for path in folder.glob('*/attempt_*/*'):
        if path.is_dir():
            document: dict[str, Any] = {}
            with suppress(OSError, ValueError, KeyError, TypeError):
                document = json.loads((path / 'error.json').read_text())['message']['mmwave']
            yield {'code': None, **document}


def _silence() -> None:
    """Leave out what torch logs of failed processes, which the summary says."""

    def wanted(record: logging.LogRecord) -> bool:
        return not _QUIET.match(record.getMessage())

    for name in ('multiprocessing.api', 'agent.server.api', 'agent.server.local_elastic_agent'):
        logging.getLogger(f'torch.distributed.elastic.{name}').addFilter(wanted)


def _say(text: str) -> None:
    print(f'error: {text}', file=sys.stderr, flush=True)


if __name__ == '__main__':
    try:
        code = launch(sys.argv[1:])
    except OSError as error:
        if error.filename is None:
            raise
        _say(f'{error.strerror}: {printable_path(osp.abspath(os.fspath(error.filename)))}')
        code = USER_ERROR
    sys.exit(code)
