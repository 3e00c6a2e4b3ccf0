"""The tools started as a user starts them, with a fault, and what became of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from tests.contracts import ROOT


class Outcome(NamedTuple):
    """Exit code, all that was printed, seconds from the start."""

    code: int
    text: str
    seconds: float


class Run:
    """A training in the background.

    Args:
        config: of :func:`tests.faults.tasks.write_task`.
        work_dir: of the run.
        options: of ``tools/train.py``.
        ranks: processes; more than one are started by ``tools/dist_train.sh``.
        fault: see :class:`tests.faults.injected.FaultHook`.
        env: environment variables beside those of this process.
        prefix: of the command, such as ``unshare``.
        launcher: whether ``tools/dist_train.sh`` starts it, None for where there are several ranks.
    """

    def __init__(
        self,
        config: Path,
        work_dir: Path,
        *options: str,
        ranks: int = 1,
        fault: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        launcher: bool | None = None,
    ) -> None:
        arguments = [str(config), '--work-dir', str(work_dir), *options]
        if not (ranks > 1 if launcher is None else launcher):
            command = [sys.executable, 'tools/train.py', *arguments]
        else:
            command = ['tools/dist_train.sh', arguments[0], str(ranks), *arguments[1:]]
        self.start = time.monotonic()
        self.name = f'{work_dir}.{time.monotonic_ns()}'
        self.output = Path(f'{self.name}.txt')
        with self.output.open('wb') as file:
            self.process = subprocess.Popen(
                [*prefix, *command],
                cwd=ROOT,
                env={
                    **os.environ,
                    'PYTHON': sys.executable,
                    'PYTHONPATH': str(ROOT),
                    'OMP_NUM_THREADS': '1',
                    'FAULT': json.dumps(fault) if fault else '',
                    'FAULT_RUN': self.name,
                    **(env or {}),
                },
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # A shell has the commands that it starts in the background ignore it.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    @property
    def text(self) -> str:
        return self.output.read_text(errors='replace')

    def wait_for(self, text: str, seconds: float = 120) -> float:
        """Wait until ``text`` was printed; return the seconds since the start."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if text in self.text:
                return time.monotonic() - self.start
            if self.process.poll() is not None and text not in self.text:
                break
            time.sleep(0.05)
        raise AssertionError(f'{text!r} was not printed:\n{self.text[-3000:]}')

    def signal(self, number: int) -> None:
        """Send a signal to the launcher, or to the one process."""
        self.process.send_signal(number)

    def wait(self, seconds: float = 300) -> Outcome:
        """Wait for the end; what is left after ``seconds`` is killed and fails the test."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f'still there after {seconds} s:\n{self.text[-3000:]}') from error
        finally:
            self.kill()
        return Outcome(code, self.text, time.monotonic() - self.start)

    def processes(self) -> list[int]:
        """Return the ids of the run's processes, wherever they are: torchrun's are no group."""
        marker = f'FAULT_RUN={self.name}\0'.encode()
        found = []
        for folder in Path('/proc').glob('[0-9]*'):
            try:
                if marker in (folder / 'environ').read_bytes():
                    found.append(int(folder.name))
            except OSError:  # it has ended, or is another user's
                continue
        return found

    def kill(self) -> None:
        """Kill all processes of the run, stopped ones and orphans too."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def train(*args: Any, seconds: float = 300, **kwargs: Any) -> Outcome:
    """Run a training to its end; arguments as :class:`Run`'s."""
    return Run(*args, **kwargs).wait(seconds)
