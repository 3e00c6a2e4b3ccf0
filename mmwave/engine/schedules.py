"""Parameter schedulers put to the point that a run has reached, by the config's own schedule.

mmengine's schedulers compute a value from the one before. Where a resumed run has another schedule,
another number of iterations an epoch or another learning rate, neither the state in the checkpoint
nor the current value leads onto the new curve. It is followed from its first step here instead.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from mmengine.optim import _ParamScheduler

from mmwave.checkpoint import brief

# Attributes that change while a scheduler runs, or that the optimizer decides; the others are the
# config's.
_PROGRESS = frozenset(
    {
        *('_global_step', 'last_step', '_last_value', 'base_values', 'verbose'),
        *('best', 'num_bad_epochs', 'cooldown_counter', 'anneal_func'),
    }
)
# A scheduler's own entries of a parameter group, as mmengine names them.
_LEADS = ('', 'initial_', 'max_', 'min_')


def changes(
    states: Sequence[Mapping[str, Any]], schedulers: Sequence[_ParamScheduler]
) -> list[str]:
    """Describe what schedulers' states in a checkpoint define otherwise than the config does."""
    lines = []
    for state, scheduler in zip(states, schedulers, strict=True):
        own = settings(scheduler)
        found = [
            f'{name} {brief(state[name])} -> {brief(value)}'
            for name, value in own.items()
            if not _equal(state[name], value)
        ]
        if found:
            lines.append(f'{type(scheduler).__name__}: {", ".join(found)}')
    return lines


def settings(scheduler: _ParamScheduler) -> dict[str, Any]:
    """Return what defines a scheduler's curve."""
    return {k: v for k, v in scheduler.state_dict().items() if k not in _PROGRESS}


def can_replay(schedulers: Sequence[_ParamScheduler]) -> bool:
    """Return whether schedulers go by their steps alone; ``ReduceOnPlateau`` goes by metrics."""
    return not any(getattr(scheduler, 'need_val_args', False) for scheduler in schedulers)


def replay(
    schedulers: Sequence[_ParamScheduler],
    groups: Sequence[dict[str, Any]],
    *,
    epochs: int,
    iters: int,
    epoch_length: int | None,
) -> list[dict[str, Any]]:
    """Follow a schedule up to a point, with the initial values that parameter groups have.

    Takes about a second for 100,000 iterations and one kind of parameter groups.

    Args:
        schedulers: as built, before their first step; left as they are.
        groups: of the optimizer that they will act on, changed in place: their current values, and
            ``initial_lr`` and the like, become those at the point.
        epochs: that were trained, 0 in a loop that counts iterations.
        iters: that were trained.
        epoch_length: iterations an epoch.

    Returns:
        The schedulers' states at the point.
    """
    built = schedulers[0].optimizer.param_groups if schedulers else []
    starts = [_start(own, group, schedulers) for own, group in zip(built, groups, strict=True)]
    ours = all(type(s).__module__.startswith('mmengine.') for s in schedulers)
    # A parameter may be a group of its own: those of equal values are followed once.
    keys = [repr(sorted(s.items())) if ours else index for index, s in enumerate(starts)]
    chosen = list({key: index for index, key in reversed(list(enumerate(keys)))}.values())
    where = [next(n for n, index in enumerate(chosen) if keys[index] == key) for key in keys]
    stand_in = _optimizer([starts[index] for index in chosen])
    twins = [_twin(scheduler, stand_in) for scheduler in schedulers]
    _walk(twins, epochs, iters, epoch_length)
    for group, n in zip(groups, where, strict=True):
        group.update(copy.deepcopy(stand_in.param_groups[n]))
    states = []
    for twin, scheduler in zip(twins, schedulers, strict=True):
        state = {name: value for name, value in vars(twin).items() if name != 'optimizer'}
        for name in ('base_values', '_last_value'):
            state[name] = [state[name][n] for n in where]
        states.append({**state, 'verbose': scheduler.verbose})
    return states


def misfits(schedulers: Sequence[_ParamScheduler], max_epochs: int, max_iters: int) -> list[str]:
    """Describe schedules of the learning rate that do not end where the run does."""
    lines = []
    rates = [s for s in schedulers if s.param_name == 'lr' and can_replay([s])]
    for scheduler in rates:
        unit, kind = ('epoch' if scheduler.by_epoch else 'iteration'), type(scheduler).__name__
        length, period = scheduler.end - scheduler.begin, getattr(scheduler, 'T_max', math.inf)
        if period < min(length, (max_epochs if unit == 'epoch' else max_iters) - scheduler.begin):
            lines.append(
                f'the {kind} reaches its lowest learning rate at {unit} '
                f'{scheduler.begin + period} and rises again: its T_max is {period}'
            )
    ends = [s.end / (max_epochs if s.by_epoch else max_iters) for s in rates]
    if rates and (last := max(ends)) < 1:
        lines.append(f'the schedule of the learning rate ends after {last:.0%} of the run')
    elif rates and last > 1:
        lines.append(f'the run ends after {1 / last:.0%} of the schedule of the learning rate')
    return lines


def _equal(given: Any, own: Any) -> bool:
    if isinstance(own, float) and isinstance(given, int | float):
        return math.isclose(given, own, rel_tol=1e-9)
    if isinstance(own, list | tuple) and isinstance(given, list | tuple):
        return len(given) == len(own) and all(map(_equal, given, own))
    return bool(given == own)


def _start(
    own: Mapping[str, Any], group: Mapping[str, Any], schedulers: Sequence[_ParamScheduler]
) -> dict[str, Any]:
    """Return a group's scheduled values before the first step, from the initial ones of ``group``.

    Values at the first step are proportional to the initial ones in all of mmengine's schedulers.
    """
    start = {}
    for name in dict.fromkeys(scheduler.param_name for scheduler in schedulers):
        base = own[f'initial_{name}']
        wanted = group.get(f'initial_{name}', group.get(name, base))
        for lead in _LEADS:
            key = lead + name
            if key in own:
                start[key] = own[key] * (wanted / base) if base else wanted
        start[f'initial_{name}'] = wanted
    # The first momentum of Adam's kind is scheduled under the name of SGD's.
    if any(getattr(scheduler, 'use_betas', False) for scheduler in schedulers):
        start['betas'] = own['betas']
    return start


def _optimizer(groups: list[dict[str, Any]]) -> Any:
    """Return what a scheduler asks of an optimizer."""

    def step() -> None:
        pass

    step._with_counter = True  # type: ignore[attr-defined]
    return SimpleNamespace(param_groups=groups, step=step, _global_step=0)


def _twin(scheduler: _ParamScheduler, optimizer: Any) -> _ParamScheduler:
    kind = type(scheduler)
    twin = kind.__new__(kind)
    vars(twin).update(copy.deepcopy(scheduler.state_dict()), optimizer=optimizer, verbose=False)
    twin.base_values = [group[f'initial_{twin.param_name}'] for group in optimizer.param_groups]
    twin._last_value = [group[twin.param_name] for group in optimizer.param_groups]
    return twin


def _walk(
    schedulers: Sequence[_ParamScheduler], epochs: int, iters: int, epoch_length: int | None
) -> None:
    """Step schedulers as mmengine's ``ParamSchedulerHook`` does."""
    of_epochs = [scheduler for scheduler in schedulers if scheduler.by_epoch]
    of_iters = [scheduler for scheduler in schedulers if not scheduler.by_epoch]
    length = epoch_length or iters + 1
    ends = [min(n * length, iters) for n in range(epochs + 1)]
    for first, last in pairwise(ends):
        for _ in range(last - first):
            for scheduler in of_iters:
                scheduler.step()
        for scheduler in of_epochs:
            scheduler.step()
    for _ in range(iters - ends[-1]):
        for scheduler in of_iters:
            scheduler.step()
