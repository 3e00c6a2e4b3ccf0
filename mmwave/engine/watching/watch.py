"""A thread that looks after the main thread of a process, and after the other processes."""

import contextlib
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType

from mmwave.errors import printable, printable_path

from .beats import Beats, Peer
from .ending import to_log_file
from .notes import Notes

_LONGEST_PAUSE = 5.0  # seconds between two looks
_LOOKS = 5  # at least, within the timeout


class Watch:
    """What is known of a process and of those that it waits for.

    A process that gives no sign of life for ``seconds`` ends the run. A main thread that finishes
    nothing for as long is told once, with the place where it is: an evaluation, a checkpoint or a
    first step may take longer. It ends the run where it reads images for a batch itself: with
    workers, the data loader's own timeout does.

    Args:
        seconds: to wait.
        beats: the signs of life, None in a run of one process.
        logger: of the run.
        end: called with the line that says why the run ends, from the thread.
    """

    def __init__(
        self,
        seconds: float,
        beats: Beats | None,
        logger: logging.Logger,
        end: Callable[[str], object],
    ) -> None:
        self.beats = beats
        self.doing = 'start'
        self.loading_share: float | None = None
        self.notes: Notes | None = None  # of a loader without workers, while it is in use
        self._seconds = seconds
        self._logger = logger
        self._end = end
        self._progress = 0
        self._last: tuple[int, int, bool] | None = None
        self._stalled = 0.0
        self._told = False
        self._told_of: set[int] = set()
        self._main = threading.get_ident()  # a run need not be in the main thread
        self._pause = min(_LONGEST_PAUSE, seconds / _LOOKS)
        self._stop = threading.Event()
        self._done = False
        self._thread = threading.Thread(target=self._run, name='mmwave-watch', daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, done: bool) -> None:
        """End the thread.

        Args:
            done: tell the others that this process needs no more watching. One that has failed
                does not: whoever still waits for it, on a machine that does not notice, is to end.
        """
        self._done = done
        self._stop.set()
        self._thread.join(2 * self._pause)

    def progress(self, doing: str) -> None:
        """Note that the main thread has finished something, and what it turns to."""
        self._progress += 1
        self.doing = doing

    def look(self, elapsed: float) -> None:
        """Look once.

        Args:
            elapsed: seconds since the last look.
        """
        frame = sys._current_frames().get(self._main or 0)
        self._look_at_main(frame, elapsed)
        if self.beats is not None:
            self._look_at_others(frame, elapsed)

    def missing(self) -> str | None:
        """Return a line about the processes that others wait for; None where there are none."""
        peers = self.beats.peers() if self.beats is not None else []
        silent = [peer for peer in peers if peer.silent > max(3 * self._pause, self._seconds / 2)]
        if silent:
            return self._silence(silent)
        known = [peer for peer in peers if peer.state.get('stalled', 0) > 2 * self._pause]
        if not known:
            return None
        others = '; '.join(
            f'{peer} has been at {printable(peer.state["doing"])} for {peer.state["stalled"]:.0f} s'
            f' ({printable(peer.state["at"], 1000)})'
            for peer in known[:3]
        )
        return f'processes wait for each other: {others}'

    def _run(self) -> None:
        last = time.monotonic()
        self.look(0.0)
        while not self._stop.wait(self._pause):
            now = time.monotonic()
            # All of the run may have been stopped, this process with it: nobody was late then.
            self.look(min(now - last, 2 * self._pause))
            last = now
        if self.beats is not None and self._done:
            try:
                self.beats.leave()
            except RuntimeError:  # the store is gone: so are those who would read it
                return

    def _look_at_main(self, frame: FrameType | None, elapsed: float) -> None:
        loading = _loader_of(frame)
        read = self.notes.all()[0] if self.notes is not None else None
        now = (self._progress, read.count if read else 0, loading)
        if now != self._last:
            self._last, self._stalled, self._told = now, 0.0, False
            return
        self._stalled += elapsed
        if self._stalled < self._seconds or self._told:
            return
        self._told = True
        if loading and read is not None and read.count:
            image = f': it is at {printable_path(read.image)}' if read.image else ''
            self._end(
                f'no image was loaded for {self._seconds:g} s (env_cfg.dist_cfg.timeout){image}; '
                'look whether the disk or server of the data answers, and what the transforms do'
            )
            return
        self._logger.warning(
            f'{self.doing}: nothing was finished for {self._seconds:g} s '
            f'(env_cfg.dist_cfg.timeout); the run goes on, its main thread is in {_place(frame)}'
        )
        stack = ''.join(traceback.format_stack(frame)).rstrip()
        to_log_file(f'the main thread:\n{stack}', logging.WARNING, self._logger)

    def _look_at_others(self, frame: FrameType | None, elapsed: float) -> None:
        assert self.beats is not None
        state = dict(doing=self.doing, stalled=self._stalled, share=self.loading_share)
        if self._stalled > self._pause:
            state['at'] = _place(frame)
        with contextlib.suppress(RuntimeError):  # of a store that does not answer: look() counts it
            self.beats.send(**state)
        self.beats.look(elapsed)
        for peer in self.beats.peers():
            if peer.silent < self._pause:
                self._told_of.discard(peer.rank)
            elif peer.silent >= self._seconds / 2 and peer.rank not in self._told_of:
                self._told_of.add(peer.rank)
                self._logger.warning(
                    f'{peer} has given no sign of life for {peer.silent:.0f} s; the run ends after '
                    f'{self._seconds:g} s (env_cfg.dist_cfg.timeout)'
                )
        silent = [peer for peer in self.beats.peers() if peer.silent >= self._seconds]
        if silent:
            self._end(self._silence(silent))

    def _silence(self, peers: list[Peer]) -> str:
        names = ', '.join(map(str, peers[:5])) + (', …' if len(peers) > 5 else '')
        plural = len(peers) > 1
        return (
            f'{names} {"have" if plural else "has"} given no sign of life for '
            f'{peers[0].silent:.0f} s (env_cfg.dist_cfg.timeout={self._seconds:g}): stopped, dead, '
            f'or on a machine that cannot be reached; {"they were" if plural else "it was"} last '
            f'at {printable(peers[0].state.get("doing", "start"))}'
        )


def _loader_of(frame: FrameType | None) -> bool:
    """Return whether a thread waits for a data loader."""
    while frame is not None:
        code = frame.f_code
        if code.co_name == '__next__' and code.co_filename.endswith('utils/data/dataloader.py'):
            return True
        frame = frame.f_back
    return False


def _place(frame: FrameType | None) -> str:
    """Return the innermost function of a thread, and its file and line."""
    if frame is None:
        return ''
    code = frame.f_code
    return f'{code.co_name}, {code.co_filename}:{frame.f_lineno}'
