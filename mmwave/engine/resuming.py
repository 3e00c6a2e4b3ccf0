"""A training state brought to the run that resumes from it: batch, schedule, learning rate.

mmengine loads the state as it is. Its numbers of iterations are those of the old batch, its
learning rate too, and what the config says now is overruled without a word. Here the state is
changed before it is loaded, so that the run goes on where the config's own schedule has got to; and
whatever is not as the config says, or not as it was, is told.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.optim import _ParamScheduler
from mmengine.runner import Runner

from mmwave.checkpoint import brief
from mmwave.engine import schedules
from mmwave.engine.optim_wrapper import optim_wrappers
from mmwave.engine.trained_with import (
    TrainedWith,
    by_iteration,
    counted,
    noted,
    trained_with,
)
from mmwave.engine.training_state import is_number
from mmwave.errors import UserError, printable

# Of torch's optimizers: how they compute, not what.
_HOW = frozenset({'foreach', 'fused', 'capturable', 'differentiable'})
_LEADS = ('', 'initial_', 'max_', 'min_')


def settle(runner: Runner, checkpoint: dict[str, Any], *, from_config: bool) -> list[str]:
    """Change a checkpoint's training state, in place, to that of this run at the same point.

    Args:
        runner: built, and not yet resumed.
        checkpoint: of a form that was checked.
        from_config: whether the optimizer's settings, such as its learning rate, are the config's
            where they differ from the checkpoint's.

    Returns:
        Warnings, as ends of sentences that begin with the checkpoint.

    Raises:
        UserError: where batch or iterations an epoch differ and the config does not allow scaling.
    """
    meta = checkpoint['meta']
    before, now = noted(meta), trained_with(runner)
    scales = bool((runner.auto_scale_lr or {}).get('enable'))
    lines = list(_batches(before, now, scales)) if before and now else []
    ratio = now.batch / before.batch if before and now else 1.0
    if scales and before is None:
        lines.append(
            'does not note the batch that it was trained with: --auto-scale-lr leaves its learning '
            'rate alone'
        )
    converted = ''
    if now and not by_iteration(runner):
        converted = _convert_counter(meta, before, now.epoch_length)
    lines += [converted] if converted else []
    differ = _scale_and_compare(runner, checkpoint, ratio, from_config)
    lines += [differ] if differ else []
    anew = ratio != 1 or bool(converted) or (bool(differ) and from_config)
    lines += _settle_schedules(runner, checkpoint, anew)
    if before and now and (before.max_epochs, before.max_iters) != (now.max_epochs, now.max_iters):
        lines += _lengths(runner, before, now)
    return lines


def _batches(before: TrainedWith, now: TrainedWith, scales: bool) -> Iterator[str]:
    """Compare how many images make a step and how many steps an epoch."""
    ways = (
        f'train with the same numbers (train_dataloader.batch_size={before.batch_size}, '
        f'{counted(before.world_size, "process")}, '
        f'optim_wrapper.accumulative_counts={before.accumulative_counts}), or give '
        '--auto-scale-lr, which scales the learning rate by the batch and converts iterations'
    )
    if before.batch != now.batch and not scales:
        raise UserError(
            f'it was trained with a batch of {before.batch_text()}, here are {now.batch_text()}: '
            f'{ways}'
        )
    lengths = (before.epoch_length, now.epoch_length)
    by_epoch = now.max_epochs is not None
    if by_epoch and None not in lengths and lengths[0] != lengths[1] and not scales:
        told = f'an epoch had {counted(lengths[0], "iteration")}, here are {lengths[1]}'
        if before.batch_size * before.world_size != now.batch_size * now.world_size:
            raise UserError(f'{told}: the accumulation is another; {ways}')
        yield f'is of another data set: {told}'
    if before.batch == now.batch and before[:3] != now[:3]:
        yield f'was trained with a batch of {before.batch_text()}, here are {now.batch_text()}'
    if (before.max_epochs is None) != (now.max_epochs is None):
        kinds = ('iterations', 'epochs')
        yield (
            f'was trained by {kinds[before.max_epochs is not None]}, this run counts '
            f'{kinds[by_epoch]}'
        )
    if before.optimizers != now.optimizers:
        yield (
            f"is of {printable(before.optimizers)}, the config's optimizer is {now.optimizers}, "
            'which goes on with the state of the other'
        )
    if scales and before.batch == now.batch:
        yield (
            f'was trained with a batch of {before.batch} as this run: --auto-scale-lr leaves its '
            'learning rate alone'
        )
    elif scales:
        yield (
            f'was trained with a batch of {before.batch_text()}, here are {now.batch_text()}: its '
            f'learning rate is scaled by {now.batch / before.batch:.4g}'
        )


def _convert_counter(meta: dict[str, Any], before: TrainedWith | None, length: int | None) -> str:
    """Count the iterations that were trained in epochs of ``length``; say so where it matters."""
    epoch, step = meta['epoch'], meta['iter']
    old = before.epoch_length if before else None
    if before is None and epoch and step % epoch == 0:  # at the end of an epoch
        old = step // epoch
    if not old or not length or old == length:
        return ''
    inside = min(max(step - epoch * old, 0), old - 1)
    meta['iter'] = epoch * length + inside * length // old
    return (
        f'was trained with {counted(old, "iteration")} an epoch, here are {length}: iterations are '
        f'counted in these, {meta["iter"]} so far'
    )


def _scale_and_compare(
    runner: Runner, checkpoint: Mapping[str, Any], ratio: float, from_config: bool
) -> str:
    """Scale learning rates; return what differs between the settings of config and checkpoint."""
    told = {}
    for name, groups in _loaded_groups(runner, checkpoint).items():
        wrapper = optim_wrappers(runner)[name]
        keys = [key for key in wrapper.optimizer.defaults if key not in _HOW]
        own = len(wrapper.optimizer.param_groups)  # the rest is never scaled, and only logged
        for index, (group, built) in enumerate(zip(groups, wrapper.param_groups, strict=True)):
            for key in (f'{lead}lr' for lead in _LEADS):
                if key in group:
                    group[key] = group[key] * ratio
            for key in keys:
                initial = f'initial_{key}'
                # A scheduled value has moved on; the initial one is the config's.
                used = initial if initial in group and initial in built else key
                if used not in group or used not in built or _same(group[used], built[used]):
                    continue
                if index < own:
                    told.setdefault(key, f'{key} {_number(group[used])} -> {_number(built[used])}')
                if from_config:
                    group[used] = built[used]
    if not told:
        return ''
    text = f'has other settings of the optimizer than the config ({", ".join(told.values())}): '
    if from_config:
        return f"{text}the config's are used"
    return (
        f"{text}the checkpoint's are kept; to use the config's, add "
        "dict(type='mmwave.ResumeCheckHook', settings='config') to its custom_hooks"
    )


def _settle_schedules(runner: Runner, checkpoint: dict[str, Any], anew: bool) -> Iterator[str]:
    """Put the schedulers to the point that is reached, where their states do not suffice."""
    schedulers = _by_name(runner.param_schedulers)
    given = _by_name(checkpoint.get('param_schedulers'))
    if not any(schedulers.values()):
        if given:
            yield 'has parameter schedulers, the config has none: the learning rate stays as it is'
        return
    found = [
        line
        for name, some in schedulers.items()
        for line in (schedules.changes(given[name], some) if given else [])
    ]
    # Without an optimizer's state, its learning rate is that of the first step.
    if not (anew or found or not given or 'optimizer' not in checkpoint):
        return
    if found:
        yield f'has another schedule than the config, which holds from here on ({"; ".join(found)})'
    if not all(map(schedules.can_replay, schedulers.values())):
        if given:
            _redefine(given, schedulers)
        yield 'has a schedule that depends on metrics: the learning rate goes on from the last one'
        return
    groups = _loaded_groups(runner, checkpoint) or {
        name: wrapper.param_groups for name, wrapper in optim_wrappers(runner).items()
    }
    meta, states = checkpoint['meta'], {}
    for name, some in schedulers.items():
        last = groups[name][0].get('lr')
        states[name] = schedules.replay(
            some,
            groups[name],
            epochs=0 if by_iteration(runner) else meta['epoch'],
            iters=meta['iter'],
            epoch_length=None if by_iteration(runner) else len(runner.train_dataloader),
        )
        if 'optimizer' in checkpoint:
            yield (
                f'was left at a learning rate of {last:.4g}: it goes on at '
                f'{groups[name][0]["lr"]:.4g}, where the schedule has got to'
            )
    several = isinstance(runner.param_schedulers, dict)
    checkpoint['param_schedulers'] = states if several else states['']


def _redefine(
    given: Mapping[str, list[dict[str, Any]]], schedulers: Mapping[str, Sequence[_ParamScheduler]]
) -> None:
    for name, some in schedulers.items():
        for state, scheduler in zip(given[name], some, strict=True):
            state.update(schedules.settings(scheduler))


def _lengths(runner: Runner, before: TrainedWith, now: TrainedWith) -> Iterator[str]:
    """Compare the lengths of the runs; a schedule may not have been lengthened along."""
    old, new, unit = before.max_epochs, now.max_epochs, 'epoch'
    if old is None or new is None:
        old, new, unit = before.max_iters, now.max_iters, 'iteration'
    if old == new:
        return
    yield f'is of a run of {counted(old, unit)}, this one has {new}'
    for some in _by_name(runner.param_schedulers).values():
        for line in schedules.misfits(some, runner.max_epochs, runner.max_iters):
            yield f'goes on with a schedule that does not end with the run: {line}'


def _loaded_groups(
    runner: Runner, checkpoint: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """Return the parameter groups in a checkpoint by the optimizer's name, as schedulers see them.

    mmengine schedules the settings of groups that the config does not single out beside them.
    """
    state = checkpoint.get('optimizer')
    if state is None:
        return {}
    states = {'': state} if '' in optim_wrappers(runner) else state
    found = {}
    for name, one in states.items():
        groups = list(one['param_groups'])
        base = one.get('base_param_settings')
        wrapper = optim_wrappers(runner)[name]
        if len(wrapper.param_groups) > len(groups):
            groups.append(base if base is not None else dict(wrapper.param_groups[-1]))
        found[name] = groups
    return found


def _by_name(schedulers: Any) -> dict[str, Any]:
    """Return schedulers, or their states, by the name of their optimizer."""
    if isinstance(schedulers, dict):
        return schedulers
    return {'': schedulers} if schedulers else {}


def _same(given: Any, own: Any) -> bool:
    if isinstance(own, list | tuple) and isinstance(given, list | tuple):
        return len(given) == len(own) and all(map(_same, given, own))
    if isinstance(own, bool) or not (is_number(own) and is_number(given)):
        return bool(given == own)
    return math.isclose(float(given), float(own), rel_tol=1e-6)


def _number(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f'({", ".join(map(_number, value))})'
    numeric = is_number(value) and not isinstance(value, bool)
    return f'{float(value):.6g}' if numeric else brief(value)
