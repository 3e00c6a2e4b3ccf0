"""The screen of a run: what a user needs; everything else goes to the log file alone.

The libraries below write hundreds of lines before the first training step, through mmengine's
logger, ``print`` and Python's warnings. Inside :func:`console` these are kept off the screen until
:meth:`Console.end_start`, warnings and errors excepted, and reach the log file whole. Warnings that
a user can do nothing about (:data:`HARMLESS`) are kept off it all the time.
"""

import logging
import os
import re
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TextIO, cast

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.logging import MMLogger

from mmwave.engine.signals import Preempted
from mmwave.errors import UserError

ON_SCREEN = {'on_screen': True}
"""``extra`` of a log record that is shown during the start as well."""

_RANKS = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
_LOADS = re.compile(r'loaded \d+ of \d+ tensors from |load (\S+ in )?model from: ')


LOGGED = "mmengine's logger"
"""Source of a warning that is logged, all under the same name, instead of raised by Python."""


class Harmless(NamedTuple):
    """A warning that is written to the log file alone.

    Attributes:
        source: the file that warns, as the end of its path, or :data:`LOGGED`.
        message: matched from the first character of the message.
        why: nothing is to be done about it.
    """

    source: str
    message: re.Pattern[str]
    why: str

    def covers(self, source: str, message: str) -> bool:
        return source.endswith(self.source) and self.message.match(message) is not None


HARMLESS = tuple(
    Harmless(source, re.compile(message), why)
    for source, message, why in (
        (
            'mmdet/evaluation/metrics/faster_coco_metric.py',
            r'faster_coco_eval is not installed, metrics will not be computed\. ',
            "untrue: it concerns mmdet's FasterCocoMetric alone, which raises by itself where it "
            'is used; CocoMetric computes its metrics without that package',
        ),
        (
            LOGGED,
            r'"FileClient" will be deprecated in future\. Please use io functions in ',
            "mmengine's own CheckpointHook calls it, whatever the config says",
        ),
        (
            LOGGED,
            r'"HardDiskBackend" is the alias of "LocalBackend" and the former will be deprecated ',
            'the same call of CheckpointHook',
        ),
        (
            LOGGED,
            r'Failed to search registry with scope "(mmdet|mmpretrain|mmseg|mmwave)" in the ',
            'a library that has no registry of its own for a kind of object (loops, log '
            "processors, ...) uses mmengine's, as is meant; other scopes may be misspelt",
        ),
        (
            LOGGED,
            r'The prefix is not set in metric class '
            r'(CityscapesMetric|DepthMetric|DumpDetResults|DumpResults|IoUMetric)\.$',
            'the names of these metrics are unambiguous without a prefix, and all that is '
            'published of mmseg calls them so; metrics of other classes may clash',
        ),
        (
            'mmengine/visualization/visualizer.py',
            r"Failed to add <class '\S+\.LocalVisBackend'>, please provide the `save_dir` arg",
            'a visualizer that is built without a run draws without storing, which is the aim',
        ),
        (
            'mmengine/utils/dl_utils/setup_env.py',
            r'Setting (MKL|OMP)_NUM_THREADS environment variable for each process to be 1 in def',
            'one thread a process is the default of torchrun too; the summary reports the number',
        ),
        (
            'mmengine/model/wrappers/distributed.py',
            r'`broadcast_buffers` is deprecated\. Use `forward_sync_buffers` instead\.',
            'mmengine passes it to torch in every distributed run',
        ),
        (
            'torch/autograd/graph.py',
            r'Grad strides do not match bucket view strides\.[^\n]*\n'
            r'grad\.sizes\(\) = \[\d+, (\d+, 1, 1|1, \d+, \d+)\],',
            'torch chooses the strides of gradients; those of sides of 1 mean nothing, so that the '
            'layouts are the same',
        ),
        (
            'mmseg/engine/hooks/visualization_hook.py',
            r'The draw is False, it means that the hook for visualization will not take effect\.',
            'nobody asked for pictures: it is the default of mmseg and ours',
        ),
        (
            'mmseg/models/losses/cross_entropy_loss.py',
            r'Default ``avg_non_ignore`` is False, if you would like to ignore the certain label ',
            "states mmseg's default, with which its recipes were published; nothing is wrong",
        ),
    )
)
"""Warnings that a user can do nothing about."""

_current: 'Console | None' = None
_carried: 'Console | None' = None


def current() -> 'Console | None':
    """Return the console of the run in progress, None outside of :func:`console`."""
    return _current


@contextmanager
def console(verbose: bool = False, *, carry: bool = False) -> Iterator['Console']:
    """Keep off the screen what a user does not need; a context inside of one is the same console.

    On leaving, everything is as it was before. Where an unexpected error ends the context before
    there is a log file, what was withheld is written to stderr.

    Args:
        verbose: withhold nothing.
        carry: leave what was withheld to the next run in this process and its log file.
    """
    global _carried, _current
    if _current is not None:
        yield _current
        return
    _current, _carried = Console(verbose, _carried), None
    try:
        with _current._installed():
            yield _current
        if carry:
            _carried = _current
        else:
            _current._show_held()
    except (Exception, SystemExit) as error:
        _current._show_held()
        if not isinstance(error, UserError | Preempted) and not verbose:
            _current._show_withheld(printed=isinstance(error, SystemExit))
        raise
    finally:
        _current = None


class Console:
    """What is shown, and what is withheld, of the run in progress; see :func:`console`.

    Args:
        verbose: withhold nothing.
        before: of the same run, whose log file was not there yet.

    Attributes:
        loads: what was logged of weights that were loaded, in order.
    """

    def __init__(self, verbose: bool, before: 'Console | None' = None) -> None:
        self.loads: list[str] = []
        self._verbose = verbose
        self._starting = True
        # Data loaders' workers are copies of this process that never see the start end.
        self._pid = os.getpid()
        # What was withheld before there was a log file.
        self._withheld: deque[logging.LogRecord] = (
            before._withheld if before else deque(maxlen=10_000)
        )
        self._recent: deque[str] = deque(maxlen=20)  # printed, and withheld so far
        self._files: list[logging.Handler] | None = None
        self._lines = _Lines(self, sys.stdout)
        self._show = warnings.showwarning
        self._call_handlers: Callable[[MMLogger, logging.LogRecord], None] = MMLogger.callHandlers
        # All processes emit the same warnings: those of the first are shown, and those of others
        # alone once these have been compared.
        rank = next((os.environ[name] for name in _RANKS if name in os.environ), '0')
        self._holds = not verbose and rank != '0'
        self._held: list[tuple[str, str]] = before._held if before else []
        self._shown: set[str] = before._shown if before else set()

    @contextmanager
    def _installed(self) -> Iterator[None]:
        def call_handlers(logger: MMLogger, record: logging.LogRecord) -> None:
            self._handle(logger, record)

        setattr(MMLogger, 'callHandlers', call_handlers)  # noqa: B010  mypy refuses the assignment
        sys.stdout = cast(TextIO, self._lines)
        warnings.showwarning = self._show_warning
        hook = sys.breakpointhook

        def debug(*arguments: Any, **options: Any) -> Any:
            self.end_start()
            return hook(*arguments, **options)

        sys.breakpointhook = debug
        try:
            yield
        finally:
            self.end_start()
            if sys.stdout is self._lines:
                sys.stdout = self._lines.screen
            if warnings.showwarning == self._show_warning:
                warnings.showwarning = self._show
            if sys.breakpointhook is debug:
                sys.breakpointhook = hook
            setattr(MMLogger, 'callHandlers', self._call_handlers)  # noqa: B010

    def attach(self, logger: MMLogger) -> None:
        """Write to the log files of ``logger`` what was withheld, and what will be."""
        # Only the first process has any: what others withhold is shown where they fail.
        files = [h for h in logger.handlers if isinstance(h, logging.FileHandler)]
        self._files = files or None
        while files and self._withheld:
            self._keep(self._withheld.popleft())

    def end_start(self, *, done: bool = False) -> None:
        """Show from here on what is printed and logged.

        Args:
            done: the start has gone well.
        """
        self._lines.end()
        self._starting = False
        if done:
            self._recent.clear()
            if self._files is None:  # another process than the first, with nothing left to explain
                self._withheld = deque(maxlen=0)

    def compare_warnings(self, last: bool) -> None:
        """Show the warnings of other processes that the first did not emit; all must call it.

        Args:
            last: processes show their own from here on.
        """
        mine, self._held = self._held, []
        processes = all_gather_object(mine) if get_world_size() > 1 else [mine]
        if last:
            self._holds = False
        if get_rank() != 0:
            return
        for rank, held in enumerate(processes):
            for key, text in held:
                if key not in self._shown:
                    self._shown.add(key)
                    sys.stderr.write(f'process {rank}: {text}')
                    self._keep(_record('py.warnings', logging.WARNING, text.rstrip()))

    def _show_held(self) -> None:
        for _, text in self._held:
            sys.stderr.write(text)
        self._held = []

    def _show_withheld(self, printed: bool) -> None:
        """Show what is in no log file; else what was last printed, which may be the reason."""
        lines = [record.getMessage() for record in self._withheld]
        if not lines and printed:
            lines = list(self._recent)
        for line in lines:
            sys.stderr.write(f'{line}\n')

    def _handle(self, logger: MMLogger, record: logging.LogRecord) -> None:
        """Pass a record of mmengine's logger on to its files, and to the screen where wanted."""
        message = record.getMessage()
        if _LOADS.match(message):
            self.loads.append(message)
        to_files = [isinstance(handler, logging.FileHandler) for handler in logger.handlers]
        shown = self._is_shown(record, message)
        for handler, to_file in zip(logger.handlers, to_files, strict=True):
            if record.levelno < handler.level or not (to_file or shown):
                continue
            if not to_file and record.levelno == logging.WARNING and not self._verbose:
                if self._is_held(message, f'{message}\n'):
                    continue
                self._shown.add(message)
            # A logger that is made during the start stores the standard output that it finds.
            if isinstance(handler, logging.StreamHandler) and handler.stream is self._lines:
                handler.setStream(self._lines.screen)
            handler.handle(record)
        if not (any(to_files) or self._verbose):
            self._keep(record)

    def _is_shown(self, record: logging.LogRecord, message: str) -> bool:
        if self._verbose or record.levelno >= logging.ERROR or hasattr(record, 'on_screen'):
            return True
        if record.levelno >= logging.WARNING:
            return not _is_harmless(LOGGED, message)
        return not (self._starting and os.getpid() == self._pid)

    def _is_held(self, key: str, text: str) -> bool:
        """Keep a warning of another process than the first until they are compared."""
        if not self._holds or os.getpid() != self._pid:
            return False
        self._held.append((key, text))
        return True

    def _show_warning(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        """Do the work of ``warnings.showwarning``; the line of code is in the log file alone."""
        if os.getpid() == self._pid:
            text = warnings.formatwarning(message, category, filename, lineno, line)
            self._keep(_record('py.warnings', logging.WARNING, text.rstrip()))
        if self._verbose:
            self._show(message, category, filename, lineno, file, line)
            return
        if _is_harmless(filename, str(message)):
            return
        key = f'{filename}:{lineno}: {message}'
        if not self._is_held(key, warnings.formatwarning(message, category, filename, lineno, '')):
            self._shown.add(key)
            self._show(message, category, filename, lineno, file, '')

    def _keep(self, record: logging.LogRecord) -> None:
        if self._files is None:
            self._withheld.append(record)
        else:
            self._write(record)

    def _write(self, record: logging.LogRecord) -> None:
        for handler in self._files or ():
            if record.levelno >= handler.level:
                handler.handle(record)


class _Lines:
    """A standard output whose lines go to the log file during the start.

    Afterwards it passes everything on. It stays in place until the run ends, since libraries may
    have wrapped its ``write``.
    """

    def __init__(self, owner: Console, screen: TextIO) -> None:
        self.screen = screen
        self._owner = owner
        self._rest = ''

    def __getattr__(self, name: str) -> Any:
        # isatty, encoding and the like. What is written past this class would overtake it.
        if name in ('buffer', 'detach', 'reconfigure'):
            self._owner.end_start()
        return getattr(self.screen, name)

    def write(self, text: str) -> int:
        owner = self._owner
        if not owner._starting or os.getpid() != owner._pid:
            return self.screen.write(text)
        if owner._verbose:
            self.screen.write(text)
        *lines, self._rest = (self._rest + text).split('\n')
        for line in lines:
            owner._recent.append(line)
            owner._keep(_record('stdout', logging.INFO, line))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def end(self) -> None:
        if self._rest:
            self._owner._recent.append(self._rest)
            self._owner._keep(_record('stdout', logging.INFO, self._rest))
            self._rest = ''


def _is_harmless(source: str, message: str) -> bool:
    return any(entry.covers(source, message) for entry in HARMLESS)


def _record(name: str, level: int, text: str) -> logging.LogRecord:
    return logging.LogRecord(name, level, '', 0, text, (), None)
