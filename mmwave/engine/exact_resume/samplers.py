"""Samplers of a data loader: their seeds, and whether they repeat themselves."""

import copy
import itertools
from typing import Any

from .own_generators import own_generators
from .positions import NumberedBatches
from .seeding import Origin, Purpose, seed_generators

_KNOWN = ('torch', 'mmengine', 'mmdet', 'mmseg', 'mmpretrain', 'mmwave')
_TRIED = 32  # batches


def samplers_of(loader: Any) -> list[Any]:
    """Return the sampler, the batch sampler and those that they take their indices from."""
    found: list[Any] = []
    waiting = [getattr(loader, 'batch_sampler', None), getattr(loader, 'sampler', None)]
    while waiting:
        sampler = waiting.pop(0)
        if isinstance(sampler, NumberedBatches):
            sampler = sampler.batches
        if sampler is None or any(sampler is other for other in found):
            continue
        found.append(sampler)
        waiting.append(vars(sampler).get('sampler') if hasattr(sampler, '__dict__') else None)
    return found


def seeds_of(loader: Any) -> list[int]:
    """Return the seeds of samplers that have one."""
    return [sampler.seed for sampler in _with_seed(loader)]


def set_seeds(loader: Any, seeds: list[int]) -> None:
    """Set the seeds of samplers that have not begun, where there are as many of them."""
    samplers = _with_seed(loader)
    if len(samplers) == len(seeds):
        for sampler, seed in zip(samplers, seeds, strict=True):
            sampler.seed = seed


def begin_turn(loader: Any, turn: int) -> None:
    """Tell the sampler that the data are begun anew, as mmengine does by iteration."""
    for sampler in (
        getattr(loader, 'sampler', None),
        getattr(getattr(loader, 'batch_sampler', None), 'sampler', None),
    ):
        if hasattr(sampler, 'set_epoch'):
            sampler.set_epoch(turn)
            return


def unrepeatable(loader: Any, *, by_epoch: bool) -> list[str]:
    """Return the types of samplers of users that choose other samples where they begin again.

    Args:
        loader: that has not begun.
        by_epoch: the sampler is iterated over anew every epoch.
    """
    own = [s for s in samplers_of(loader) if type(s).__module__.partition('.')[0] not in _KNOWN]
    if not own or loader.batch_sampler is None:
        return []
    try:
        first, second = (_copy(loader) for _ in range(2))
        chosen = _choose(first), _choose(second), (_choose(first) if by_epoch else None)
    except Exception:  # of samplers that cannot be copied, or iterated over here
        return [type(sampler).__name__ for sampler in own]
    same = chosen[0] == chosen[1] and (not by_epoch or chosen[2] == chosen[0])
    return [] if same else [type(sampler).__name__ for sampler in own]


def _with_seed(loader: Any) -> list[Any]:
    return [s for s in samplers_of(loader) if type(getattr(s, 'seed', None)) is int]


def _copy(loader: Any) -> Any:
    batches = loader.batch_sampler
    if isinstance(batches, NumberedBatches):
        batches = batches.batches
    return copy.deepcopy(batches, {id(loader.dataset): loader.dataset})


def _choose(batches: Any) -> list[list[Any]]:
    own = own_generators(batches)
    seed_generators(Origin(0, 0), Purpose.ORDER, own=own)
    return [list(batch) for batch in itertools.islice(iter(batches), _TRIED)]
