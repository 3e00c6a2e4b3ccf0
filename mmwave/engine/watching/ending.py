"""The end of a process whose main thread does not come back."""

import logging
import multiprocessing
import os
import sys
import threading
from typing import NoReturn

from torch.distributed.elastic.multiprocessing.errors import get_error_handler

from mmwave.engine.exit_codes import UNAVAILABLE
from mmwave.errors import UserError, printable

_SECONDS_TO_TELL = 5


class UnavailableError(UserError):
    """A process, a batch or a machine that the run waited for in vain."""

    exit_code = UNAVAILABLE


def end_process(line: str, logger: logging.Logger) -> NoReturn:
    """End this process from another thread than its main one, with its data loaders' workers.

    Args:
        line: why, for the log file, for stderr and for torchrun's summary.
        logger: of the run.
    """
    # The main thread may hold the lock of a log handler, or hang in a write to a full pipe.
    teller = threading.Thread(target=_tell, args=(line, logger), daemon=True)
    teller.start()
    teller.join(_SECONDS_TO_TELL)
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(UNAVAILABLE)


def to_log_file(text: str, level: int, logger: logging.Logger) -> None:
    """Write a record to the files of a logger, and not to the screen."""
    record = logging.LogRecord(logger.name, level, __file__, 0, text, None, None)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def _tell(line: str, logger: logging.Logger) -> None:
    sys.stderr.write(f'error: {printable(line, 4000)}\n')
    sys.stderr.flush()
    to_log_file(line, logging.ERROR, logger)
    summary = get_error_handler()
    summary.initialize()
    try:
        raise UnavailableError(line)
    except UnavailableError as error:  # with the traceback that the summary asks for
        summary.record_exception(error)
