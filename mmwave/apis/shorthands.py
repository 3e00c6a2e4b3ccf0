"""Shorthands for the settings that people change most, with what has to change beside them."""

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from .options import merge
from .usage import INSTALL, UsageError

TRACKERS = {'tensorboard': 'TensorboardVisBackend', 'wandb': 'WandbVisBackend'}
"""Tracker -> mmengine's backend of a visualizer."""

_ENDLESS = 10**9  # mmengine's end of a scheduler that states none
_COUNTS = ('step_size', 'total_steps')
_WARM_UPS = ('LinearLR', 'ConstantLR', 'LinearMomentum', 'ConstantMomentum')


@dataclass(frozen=True, kw_only=True)
class Shorthands:
    """Settings of a training by short names; None leaves the config's.

    Attributes:
        epochs: length of the training; schedules of the learning rate are scaled to it.
        iters: the same, of a config that counts iterations.
        batch: images of a process in a training step.
        lr: learning rate.
        track: of :data:`TRACKERS`.
    """

    epochs: int | None = None
    iters: int | None = None
    batch: int | None = None
    lr: float | None = None
    track: str | None = None


def use_shorthands(cfg: Config, given: Shorthands, options: Mapping[str, Any]) -> None:
    """Change a config as shorthands say.

    Args:
        cfg: changed in place.
        given: what to change.
        options: of ``--cfg-options``, which may not set the same.

    Raises:
        UsageError: where the config counts its length otherwise, has no such setting, or an option
            sets it too, or the tracker is not installed.
    """
    settings = {
        '--epochs': ('train_cfg.max_epochs', given.epochs),
        '--iters': ('train_cfg.max_iters', given.iters),
        '--batch': ('train_dataloader.batch_size', given.batch),
        '--lr': ('optim_wrapper.optimizer.lr', given.lr),
    }
    for name, (key, value) in settings.items():
        if value is None:
            continue
        if not (value > 0 and math.isfinite(value)):
            raise UsageError(f'{name} {value}: expected a number above 0')
        if key in options:
            raise UsageError(f'{name} and --cfg-options {key} set the same: give one of them')
        present = _at(cfg, key)
        if name in ('--epochs', '--iters'):
            _set_length(cfg, name, value)
        elif present is None:
            raise UsageError(f'{name} {value}: the config has no {key}')
        else:
            merge(cfg, {key: value})
    if given.track is not None:
        _track(cfg, given.track)


def _at(cfg: Config, key: str) -> Any:
    node: Any = cfg
    for name in key.split('.'):
        node = node.get(name) if isinstance(node, Mapping | Config) else None
    return node


def _set_length(cfg: Config, name: str, length: int) -> None:
    loop = cfg.get('train_cfg') or {}
    unit = 'epochs' if name == '--epochs' else 'iters'
    key, other = f'max_{unit}', 'max_iters' if unit == 'epochs' else 'max_epochs'
    if loop.get(key) is None:
        if loop.get(other) is None:
            raise UsageError(f'{name} {length}: the config states no train_cfg.{key}')
        raise UsageError(
            f'{name} {length}: this config has a length of train_cfg.{other}={loop[other]}: '
            f'give --{other.removeprefix("max_")}'
        )
    before = loop[key]
    loop[key] = length
    # What has a longer interval than the run would not happen at all.
    for holder, interval in ((loop, 'val_interval'), (_checkpoint(cfg), 'interval')):
        if isinstance(holder.get(interval), int) and holder[interval] > length:
            holder[interval] = length
    if before != length:
        _scale_schedulers(cfg, before, length, by_epoch=unit == 'epochs')


def _checkpoint(cfg: Config) -> Any:
    return (cfg.get('default_hooks') or {}).get('checkpoint') or {}


def _scale_schedulers(cfg: Config, before: int, after: int, *, by_epoch: bool) -> None:
    """Scale what schedulers count in the unit of the run; say in a line what stays as it is."""
    schedulers = cfg.get('param_scheduler') or []
    if isinstance(schedulers, Mapping):
        schedulers = [schedulers]
    kept = []
    for scheduler in schedulers:
        kind = scheduler['type']
        if bool(scheduler.get('by_epoch', True)) != by_epoch:
            unit = 'iterations' if by_epoch else 'epochs'
            end = scheduler.get('end', 'the end')
            _say(f'{kind}, from {scheduler.get("begin", 0)} to {end} {unit}, stays as it is')
        elif not _scale(scheduler, before, after):
            _say(f'{kind} is left out: of {after} instead of {before} it would have no whole step')
            continue
        elif not any(
            key in scheduler for key in ('end', 'T_max', 'milestones', 'periods', *_COUNTS)
        ):
            _say(f'{kind} states nothing that can be scaled to {after}, and stays as it is')
        kept.append(scheduler)
    if schedulers:
        cfg.param_scheduler = kept


def _scale(scheduler: Any, before: int, after: int) -> bool:
    """Scale one scheduler in place.

    Returns:
        False where nothing is left of it: a warm-up needs two steps, the first of which has the low
        rate; else the low rate would stay.
    """

    def scaled(count: int) -> int:
        return after + count - before if count > before else round(count * after / before)

    old_begin, old_end = scheduler.get('begin', 0), scheduler.get('end', _ENDLESS)
    begin, end = scaled(old_begin), old_end if old_end >= _ENDLESS else scaled(old_end)
    least = (
        2 if scheduler['type'] in _WARM_UPS and not scheduler.get('convert_to_iter_based') else 1
    )
    if end - begin < least:
        return False
    scheduler.update({k: v for k, v in (('begin', begin), ('end', end)) if k in scheduler})
    if 'T_max' in scheduler:
        whole = scheduler['T_max'] == old_end - old_begin
        scheduler['T_max'] = end - begin if whole else max(1, scaled(scheduler['T_max']))
    for key in _COUNTS:
        if key in scheduler:
            scheduler[key] = max(1, scaled(scheduler[key]))
    for key in ('milestones', 'periods'):
        if key in scheduler:
            scheduler[key] = list(_distinct(map(scaled, scheduler[key]), after, key))
    return True


def _distinct(counts: Any, after: int, key: str) -> Iterator[int]:
    """Yield counts of one step or more, milestones once each and before the end."""
    seen = set()
    for count in counts:
        count = max(1, count)
        if key == 'milestones':
            count = min(count, after - 1)
            if count < 1 or count in seen:
                continue
        seen.add(count)
        yield count


def _track(cfg: Config, tracker: str) -> None:
    if tracker not in TRACKERS:
        raise UsageError(f'--track {tracker}: expected one of {", ".join(TRACKERS)}')
    if find_spec(tracker) is None:
        raise UsageError(
            f"--track {tracker}: it is not installed: pip install '{INSTALL.get(tracker, tracker)}'"
        )
    visualizer = cfg.get('visualizer') or dict(
        type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]
    )
    backends = list(visualizer.get('vis_backends') or [])
    if all(backend.get('type') != TRACKERS[tracker] for backend in backends):
        backends.append(dict(type=TRACKERS[tracker]))
    # A list of its own: variables of the config file may hold the same one.
    cfg.visualizer = dict(visualizer, vis_backends=backends)


def _say(line: str) -> None:
    print_log(f'param_scheduler: {line}', logger='current', level=logging.WARNING)
