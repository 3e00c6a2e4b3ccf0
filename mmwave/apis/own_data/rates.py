"""Learning rate and schedule for another batch and another number of images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from mmwave.apis.usage import UsageError
from mmwave.engine.data_checks.datasets import bare_type

from .text import Code, number

_POINTS = ('begin', 'end', 'T_max')
# A warm-up is at most this part of the training, an average looks back over no more.
_PART = 10
_HIGHEST_MOMENTUM = 0.1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long a training is and how fast it learns.

    Attributes:
        batch: images a step, on one GPU.
        steps: of an epoch.
        total: steps of the training.
        epochs: of the training; for one that counts iterations those that they amount to.
        rate: the learning rate.
        rule: how it follows from the base's, '' where the base states no batch size for its own.
        by_epoch: the training counts epochs.
        settings: of the config.
    """

    batch: int
    steps: int
    total: int
    epochs: float
    rate: float
    rule: str
    by_epoch: bool
    settings: dict[str, Any]


def plan(cfg: Config, num_images: int, *, batch: int | None, epochs: int | None) -> Plan:
    """Scale the learning rate of a base by the linear rule, and its schedule to the length.

    Args:
        cfg: the base.
        num_images: of the training data.
        batch: images a step on one GPU, None for the base's.
        epochs: length, None for the base's.

    Raises:
        UsageError: where a number is below 1, or the base states no learning rate or length.
    """
    for name, value in (('--batch', batch), ('--epochs', epochs)):
        if value is not None and value < 1:
            raise UsageError(f'{name} {value}: at least 1 is needed')
    batch = batch or cfg.train_dataloader.get('batch_size', 1)
    steps = math.ceil(num_images / batch)
    loop = cfg.get('train_cfg') or {}
    by_epoch = 'max_epochs' in loop
    if not by_epoch and 'max_iters' not in loop:
        raise UsageError('the base states neither train_cfg.max_epochs nor train_cfg.max_iters')
    old = loop['max_epochs' if by_epoch else 'max_iters']
    new = old if epochs is None else (epochs if by_epoch else epochs * steps)
    total = new * steps if by_epoch else new
    settings: dict[str, Any] = {}
    if new != old:
        settings |= _length(cfg, new, by_epoch=by_epoch)
    schedule = cfg.get('param_scheduler') or []
    schedule = [schedule] if isinstance(schedule, Mapping) else list(schedule)
    rate, rule, own = _rate(cfg, batch)
    scaled = [
        _floored(_scaled(s, old, new, total, by_epoch=by_epoch), rate / _base_rate(cfg))
        for s in schedule
    ]
    if scaled != [dict(s) for s in schedule]:
        settings['param_scheduler'] = [s for s in scaled if not _is_point(s)]
    hooks = cfg.get('custom_hooks') or []
    averaged = [_averaged(dict(hook), total) for hook in hooks]
    if averaged != [dict(hook) for hook in hooks]:
        settings['custom_hooks'] = averaged
    return Plan(
        batch=batch,
        steps=steps,
        total=total,
        epochs=new if by_epoch else new / steps,
        rate=rate,
        rule=rule,
        by_epoch=by_epoch,
        settings=own | settings,
    )


def _base_rate(cfg: Config) -> float:
    wrapper = cfg.get('optim_wrapper') or {}
    rate = (wrapper.get('optimizer') or {}).get('lr')
    if not isinstance(rate, int | float) or rate <= 0:
        raise UsageError('the base states no optim_wrapper.optimizer.lr')
    return rate


def _rate(cfg: Config, batch: int) -> tuple[float, str, dict[str, Any]]:
    rate = _base_rate(cfg)
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if base is None:
        return rate, '', {}
    settings: dict[str, Any] = {}
    if batch != base:
        text = f'{number(rate)} * {batch} / {base}'
        settings['optim_wrapper'] = dict(optimizer=dict(lr=Code(text)))
        settings['auto_scale_lr'] = dict(base_batch_size=batch)
    return rate * batch / base, f'{number(rate)} x {batch} / {base}', settings


def _length(cfg: Config, new: int, *, by_epoch: bool) -> dict[str, Any]:
    if by_epoch:
        return dict(train_cfg=dict(max_epochs=new))
    every = max(1, new // _PART)
    settings: dict[str, Any] = dict(train_cfg=dict(max_iters=new, val_interval=every))
    if bare_type((cfg.get('default_hooks') or {}).get('checkpoint')) == 'CheckpointHook':
        settings['default_hooks'] = dict(checkpoint=dict(interval=every))
    return settings


def _scaled(
    scheduler: Mapping[str, Any], old: int, new: int, total: int, *, by_epoch: bool
) -> dict[str, Any]:
    """Return a scheduler for a training of ``new`` epochs or iterations in place of ``old``."""
    own = dict(scheduler)
    if by_epoch and not own.get('by_epoch', True):
        # A warm-up in iterations: the same, but for a training that is hardly longer.
        if own.get('end', 0) > total // _PART:
            own['end'] = max(2, total // _PART)
        return own
    if old == new:
        return own
    for name in _POINTS:
        if isinstance(own.get(name), int):
            own[name] = _point(own[name], old, new)
    if 'milestones' in own:
        points = {min(new - 1, _point(point, old, new)) for point in own['milestones']}
        own['milestones'] = sorted(points - {0})
    return own


def _point(value: int, old: int, new: int) -> int:
    """Return where a point of a schedule comes to lie."""
    if value == 0:
        return 0
    if value >= old:
        return new + value - old
    # A warm-up of one step would divide by its length less one.
    return min(new, max(2, round(value * new / old)))


def _floored(scheduler: dict[str, Any], factor: float) -> dict[str, Any]:
    """Return a scheduler whose lowest rate is scaled as the rate is: it must not lie above it."""
    if not scheduler.get('eta_min') or factor == 1:
        return scheduler
    return {**scheduler, 'eta_min': float(f'{scheduler["eta_min"] * factor:.2g}')}


def _is_point(scheduler: Mapping[str, Any]) -> bool:
    """Return whether a warm-up has become too short to be one."""
    length = scheduler.get('end', math.inf) - scheduler.get('begin', 0)
    return bare_type(scheduler) == 'LinearLR' and length < 2


def _averaged(hook: dict[str, Any], total: int) -> dict[str, Any]:
    """Return a hook; one that averages weights over longer than a short training averages less."""
    momentum = hook.get('momentum')
    if bare_type(hook) != 'EMAHook' or not isinstance(momentum, float):
        return hook
    least = min(_HIGHEST_MOMENTUM, _PART / total)
    return {**hook, 'momentum': float(f'{least:.1g}')} if momentum < least else hook
