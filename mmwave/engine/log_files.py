"""Files of a run's log on a disk that fails: the run outlives them."""

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any

from mmengine.runner import Runner

from mmwave.errors import printable

_WRITERS = ('add_config', 'add_graph', 'add_image', 'add_scalar', 'add_scalars')


def outlive_log_files(runner: Runner) -> None:
    """Have a run go on where its log, its curves or its pictures cannot be written.

    A full disk would otherwise end it in mmengine's visualizer, or print a traceback for every line
    of the log. What fails is told once, on the screen.
    """
    for handler in runner.logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handleError = _Once(handler).handle_error  # type: ignore[method-assign]
    for backend in runner.visualizer._vis_backends.values():
        told = _Once(backend)
        for name in _WRITERS:
            if hasattr(backend, name):
                setattr(backend, name, told.tolerant(getattr(backend, name)))


class _Once:
    """Tell the first failure of what writes files."""

    def __init__(self, writer: Any) -> None:
        self._writer, self._told = writer, False

    def tolerant(self, write: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(write)
        def tried(*args: Any, **kwargs: Any) -> Any:
            try:
                return write(*args, **kwargs)
            except OSError as error:
                self._tell(error)

        return tried

    def handle_error(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self._tell(error)
        else:
            logging.FileHandler.handleError(self._writer, record)

    def _tell(self, error: OSError) -> None:
        if self._told:
            return
        self._told = True
        kind = type(self._writer).__name__
        print(
            f'warning: {kind} cannot write ({printable(error, 1000)}): the run goes on and its log '
            'has gaps',
            file=sys.stderr,
            flush=True,
        )
