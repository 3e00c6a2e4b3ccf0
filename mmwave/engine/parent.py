"""Ranks die with their launcher: orphans would train on, into the folder of the next run."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_launcher() -> None:
    """Have the kernel kill this process as soon as torchrun, which started it, is gone.

    torchrun starts its ranks from its main thread, whose end is that of the process. Elsewhere than
    on Linux, and in processes that it did not start, nothing happens.
    """
    if 'TORCHELASTIC_RUN_ID' not in os.environ or not sys.platform.startswith('linux'):
        return
    parent = os.getppid()
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):  # a C library without it
        return
    if os.getppid() != parent:  # which died before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)
