"""How long a run waits, for another process and for a batch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import Any

from mmengine.config import Config

from mmwave.engine.process_group import set_group_timeout
from mmwave.errors import UserError

TIMEOUT = 300
"""Seconds, where a config names none."""

SECONDS_AN_IMAGE = 2
"""Of a worker's batch: one whose images take that long is slow, not hanging."""

_PATIENCE = 24 * 3600
_KEY = 'env_cfg.dist_cfg.timeout'


def timeout_of(cfg: Config) -> float:
    """Return ``env_cfg.dist_cfg.timeout`` in seconds, the default where there is none.

    Raises:
        UserError: where it is no positive number.
    """
    dist = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
    seconds = dist.get('timeout')
    if seconds is None:
        return TIMEOUT
    if isinstance(seconds, bool) or not isinstance(seconds, Real) or not 0 < seconds < _PATIENCE:
        raise UserError(
            f'{_KEY} must be a number of seconds above 0 and below {_PATIENCE} (a day), got '
            f'{seconds!r}'
        )
    return float(seconds)


def settle_timeouts(cfg: Config) -> None:
    """Set the timeouts that the copy of a config that runs lacks, in place.

    Data loaders with workers get torch's ``timeout``, which by default is none: that of the
    processes, or :data:`SECONDS_AN_IMAGE` for each image of a batch, which one worker loads, where
    that is more.

    Args:
        cfg: of the run.

    Raises:
        UserError: as :func:`timeout_of`.
    """
    seconds = timeout_of(cfg)
    if cfg.get('env_cfg') is None:
        cfg.env_cfg = {}
    if cfg.env_cfg.get('dist_cfg') is None:
        cfg.env_cfg.dist_cfg = dict(backend='nccl')
    cfg.env_cfg.dist_cfg.timeout = seconds
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if isinstance(loader, Mapping) and loader.get('num_workers') and 'timeout' not in loader:
            batch = loader.get('batch_size') or 1
            loader['timeout'] = max(seconds, SECONDS_AN_IMAGE * batch)  # type: ignore[index]


class Patience:
    """The timeout of collective operations: short from step to step, long where one may wait.

    The first process computes the metrics of a validation and writes checkpoints while the others
    wait in their next collective operation. First steps differ as well, by what is compiled and
    read. That processes which are waited for still run is known by their :class:`.beats.Beats`.

    Args:
        seconds: from step to step.
        first_steps: that may take long.
    """

    def __init__(self, seconds: float, first_steps: int) -> None:
        self._seconds = seconds
        self._steps_to_go = first_steps
        self._long = False

    def extend(self, steps: int = 1) -> None:
        """Have the others waited for until ``steps`` more steps have ended."""
        self._steps_to_go = max(self._steps_to_go, steps)
        if not self._long:
            set_group_timeout(_PATIENCE)
            self._long = True

    def step_done(self) -> None:
        self._steps_to_go -= 1
        if self._long and self._steps_to_go <= 0:
            self.end()

    def end(self) -> None:
        if self._long:
            set_group_timeout(self._seconds)
            self._long = False


@contextmanager
def saving_patiently(runner: Any, patience: Patience) -> Iterator[None]:
    """Extend the patience whenever ``runner`` saves, which all processes call and one does."""
    save = runner.save_checkpoint

    def save_checkpoint(*args: Any, **kwargs: Any) -> Any:
        patience.extend()
        return save(*args, **kwargs)

    runner.save_checkpoint = save_checkpoint
    try:
        yield
    finally:
        if runner.__dict__.get('save_checkpoint') is save_checkpoint:
            del runner.save_checkpoint
