"""How a command ends: errors in one line, and the exit codes of a run."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from mmwave.apis.config_names import find_config
from mmwave.apis.failures import end_by, note_exit
from mmwave.apis.usage import libraries_named
from mmwave.engine.exit_codes import INTERRUPTED, PREEMPTED
from mmwave.engine.parent import die_with_launcher
from mmwave.engine.signals import Preempted, leave


def run_tool(
    main: Callable[[argparse.Namespace], int | None], parser: argparse.ArgumentParser
) -> None:
    """Parse the command line and call ``main``; a user's error ends in one line and exit code 2.

    Such are :class:`UserError`, files that are not there or must not be opened, and libraries that
    are not installed; see :mod:`.failures` for others, most of which are mistakes of ours and keep
    their traceback. A run that leaves at a signal ends with the exit codes of
    :mod:`mmwave.engine.exit_codes`.

    Args:
        main: returns the exit code, or None for 0.
        parser: of the tool; an argument ``config``, a name or a path, becomes a path.
    """
    die_with_launcher()
    try:
        with libraries_named():
            args = parser.parse_args()
            _set_local_rank(args)
            config = getattr(args, 'config', None)
            if isinstance(config, str):
                args.config = find_config(config)
            status = main(args)
    except Preempted as error:
        note_exit(PREEMPTED)
        if not error.together:
            print(error.text, file=sys.stderr)
        leave()
    except KeyboardInterrupt:
        _end_interrupted()
    except SystemExit as end:
        note_exit(end.code)
        raise
    except Exception as error:
        if _is_interrupt(error):
            _end_interrupted()
        # torch's handler raises an error for a data loader's worker that ends meanwhile.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        code = end_by(error)
        if code is None:
            raise
        sys.exit(code)
    if 'torch' in sys.modules:
        from mmwave.engine.process_group import leave_process_group

        leave_process_group()
    if status:
        note_exit(status)
        sys.exit(status)


def _is_interrupt(error: BaseException) -> bool:
    """Return whether an error took the place of a Ctrl-C.

    mmengine formats the config of every checkpoint and takes whatever is raised in that second for
    a mistake in it.
    """
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, KeyboardInterrupt):
            return True
        below = below.__cause__ or below.__context__
    return False


def _end_interrupted() -> NoReturn:
    note_exit(INTERRUPTED)
    if os.environ.get('RANK', '0') == '0':
        print('interrupted', file=sys.stderr)
    sys.exit(INTERRUPTED)


def _set_local_rank(args: argparse.Namespace) -> None:
    # torchrun and mmengine's Slurm set-up set it themselves, Open MPI under its own name.
    local_rank = os.environ.get('OMPI_COMM_WORLD_LOCAL_RANK', getattr(args, 'local_rank', 0))
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
