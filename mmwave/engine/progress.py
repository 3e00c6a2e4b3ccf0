"""A bar below the log lines of a training on a terminal: iteration, loss and the time left.

Where the standard output is no terminal there is none, and the lines of the log are all.
"""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

SECONDS = 0.5
"""At least so long from one drawing to the next."""


@contextmanager
def live_progress(runner: Runner) -> Iterator[None]:
    """Show a bar while ``runner`` trains within, in the first process and on a terminal alone.

    Args:
        runner: not yet trained; gets a hook.
    """
    from rich.console import Console
    from rich.file_proxy import FileProxy

    stream = sys.stdout
    if not (is_main_process() and stream.isatty()):
        yield
        return
    screen = Console(file=getattr(stream, 'screen', stream))
    if screen.is_dumb_terminal:
        yield
        return
    hook = ProgressHook(screen)
    runner.register_hook(hook)
    # Lines that overtake the bar would be drawn into it.
    handlers = [
        handler
        for handler in runner.logger.handlers
        if isinstance(handler, logging.StreamHandler)
        and not isinstance(handler, logging.FileHandler)
    ]
    hook.on_start = lambda: [h.setStream(FileProxy(screen, screen.file)) for h in handlers]
    try:
        yield
    finally:
        hook.stop()
        for handler in handlers:
            if isinstance(handler.stream, FileProxy):
                handler.setStream(screen.file)


class ProgressHook(Hook):
    """Draw the bar, by hand: a thread that draws would hold locks when data loaders fork.

    Args:
        screen: rich's console.
    """

    priority = 'LOWEST'

    def __init__(self, screen: Any) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeRemainingColumn as TimeLeft

        self._bar = Progress(
            *(TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn()),
            *(TextColumn('loss {task.fields[loss]}'), TextColumn('ETA'), TimeLeft()),
            console=screen,
            auto_refresh=False,
            transient=True,
        )
        self._task: Any = None
        self._drawn = 0.0
        self.on_start: Any = None

    def before_train(self, runner: Runner) -> None:
        self._task = self._bar.add_task(
            'training', total=runner.max_iters, completed=runner.iter, loss='-'
        )
        self._bar.start()
        self.on_start()

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if time.monotonic() - self._drawn < SECONDS:
            return
        # A number by now: mmengine converts the loss of every step.
        scalars = runner.message_hub.log_scalars
        loss = f'{scalars["train/loss"].current():.4g}' if 'train/loss' in scalars else '-'
        self._draw(completed=runner.iter + 1, loss=loss)

    def before_val(self, runner: Runner) -> None:
        self._draw(description='validating')

    def after_val(self, runner: Runner) -> None:
        self._draw(description='training')

    def stop(self) -> None:
        """Remove the bar; the standard output is what it was."""
        self._bar.stop()

    def _draw(self, **values: Any) -> None:
        if self._task is not None:
            self._bar.update(self._task, refresh=True, **values)
            self._drawn = time.monotonic()
