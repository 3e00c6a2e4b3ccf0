"""A training state is checked before it is resumed, and may name no files but this run's own."""

import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from mmwave.checkpoint import brief
from mmwave.engine.checkpoints import output_folder
from mmwave.engine.checkpoints.plain import same_metainfo, with_histories
from mmwave.engine.resuming import settle
from mmwave.engine.trained_with import KEY, trained_with
from mmwave.engine.training_state import (
    averaged_models,
    check_average,
    check_hub,
    check_optimizer,
    check_progress,
    check_schedulers,
    is_count,
)
from mmwave.errors import UserError, printable_path
from mmwave.registry import HOOKS

_STATE = ('message_hub', 'optimizer', 'param_schedulers')
_METRICS = ('train', 'val', 'test')  # mmengine logs every name that begins so


@HOOKS.register_module()
class ResumeCheckHook(Hook):
    """Check a checkpoint that is resumed from, and remove the names of foreign files from it.

    mmengine's ``CheckpointHook`` removes what the training state names as the best checkpoint so
    far when it has a better one, whatever that is and wherever. A name is kept where it is that of
    a checkpoint in the folder that this run writes its checkpoints to. On resuming from a
    checkpoint in that folder, which may be a copy or have been moved, a checkpoint of the same base
    name there takes the place of one elsewhere. The others are dropped, with the score that belongs
    to them, and are listed in one warning: the best checkpoint of a new folder is the best of the
    epochs that are trained there.

    Every checkpoint notes how many processes, images and iterations it was trained with. A run with
    another batch, or another number of iterations an epoch, goes on with ``--auto-scale-lr`` alone,
    and a schedule that the config changes holds from there on, see :mod:`mmwave.engine.resuming`.

    Args:
        settings: whose settings of the optimizer, such as the learning rate, hold where they
            differ: those of the ``'checkpoint'``, as in mmengine, or those of the ``'config'``.

    Raises:
        UserError: on resuming, where the checkpoint holds no training state, or one that is damaged
            or does not fit this run.
    """

    # Before every other hook reads the checkpoint.
    priority = 'HIGHEST'

    def __init__(self, settings: str = 'checkpoint') -> None:
        if settings not in ('checkpoint', 'config'):
            raise UserError(
                f"ResumeCheckHook: settings is {brief(settings)}, expected 'checkpoint' or 'config'"
            )
        self.settings = settings

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        numbers = trained_with(runner)
        if numbers is not None:
            checkpoint['meta'][KEY] = numbers._asdict()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if not runner._resume:
            return
        path = runner._load_from
        source = printable_path(path) if path else f'the last checkpoint in {runner.work_dir}'
        _refuse_mere_weights(checkpoint, source)
        try:
            checkpoint['message_hub'] = with_histories(checkpoint.get('message_hub'))
            _check(runner, checkpoint)
            left_out = _left_out(runner, checkpoint)
            settled = settle(runner, checkpoint, from_config=self.settings == 'config')
        except UserError as error:
            raise UserError(f'{source} cannot be resumed from: {error}') from error
        for line in (*left_out, *settled):
            runner.logger.warning(f'{source} {line}')
        own = getattr(runner.train_dataloader.dataset, 'metainfo', None)
        if same_metainfo(checkpoint['meta'].get('dataset_meta'), own):
            checkpoint['meta']['dataset_meta'] = own  # mmengine compares the bytes of a pickle
        hub = checkpoint['message_hub']
        checkpoint['message_hub'], dropped = _own_files_only(hub, runner)
        if dropped:
            runner.logger.warning(
                f"{source} names files that are no checkpoints in this run's folder, which are "
                f'left alone: {", ".join(dropped)}'
            )


def _refuse_mere_weights(checkpoint: Mapping[str, Any], source: str) -> None:
    meta = checkpoint.get('meta') or {}
    if not any(key in checkpoint for key in _STATE) and 'epoch' not in meta and 'iter' not in meta:
        raise UserError(
            f'{source} holds weights only, no training state to resume: to start from the weights '
            f'of a whole model give --load-from {source} in place of --resume, for '
            "those of a backbone set model.backbone.init_cfg (type='Pretrained', checkpoint=...)"
        )


def _check(runner: Runner, checkpoint: Mapping[str, Any]) -> None:
    by_iteration = isinstance(runner.train_loop, IterBasedTrainLoop)
    check_progress(
        checkpoint.get('meta') or {},
        max_epochs=None if by_iteration else runner.max_epochs,
        max_iters=runner.max_iters if by_iteration else None,
    )
    check_hub(checkpoint.get('message_hub'))
    if 'optimizer' in checkpoint:
        check_optimizer(checkpoint['optimizer'], runner.optim_wrapper)
    if 'param_schedulers' in checkpoint and runner.param_schedulers is not None:
        check_schedulers(checkpoint['param_schedulers'], runner.param_schedulers)
    if 'ema_state_dict' in checkpoint:
        for averaged in averaged_models(runner):
            check_average(checkpoint['ema_state_dict'], checkpoint.get('state_dict'), averaged)


def _left_out(runner: Runner, checkpoint: Mapping[str, Any]) -> list[str]:
    """Describe what mmengine starts from scratch, in silence, for lack of it in the checkpoint."""
    lines = []
    if 'optimizer' not in checkpoint:
        lines.append("holds no optimizer state: the optimizer's begins anew")
    if 'param_schedulers' not in checkpoint and runner.param_schedulers:
        lines.append('holds no state of parameter schedulers: they are put where it was left')
    averages = bool(averaged_models(runner))
    if 'ema_state_dict' in checkpoint and not averages:
        lines.append('holds averaged weights: training goes on from these, averaging nothing')
    if 'ema_state_dict' not in checkpoint and averages:
        lines.append('holds no averaged weights: the average begins anew')
    return lines


def _own_files_only(hub: Mapping[str, Any], runner: Runner) -> tuple[dict[str, Any], list[str]]:
    """Return a training state's hub without foreign files, and these files by their names in it."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    folders = [output_folder(hook.out_dir, runner.work_dir) for hook in hooks]
    source = os.path.dirname(runner._load_from or '')
    own_source = any(os.path.realpath(source) == os.path.realpath(f) for f in folders)
    # Values of metrics: those of a validation are not read before the next one.
    given = hub['runtime_info'].items()
    info = {name: value for name, value in given if not name.startswith(_METRICS)}
    dropped: list[str] = []
    for name in list(info):
        if name != 'last_ckpt' and not name.startswith('best_ckpt'):
            continue
        lead = '' if name == 'last_ckpt' else 'best_'
        path = _own_file(info[name], folders, lead, by_name=own_source)
        if path is not None:
            info[name] = path
            continue
        text = f'{name} {brief(info.pop(name), 200)}'
        score = info.pop(name.replace('best_ckpt', 'best_score'), None)
        dropped.append(text if score is None else f'{text} of score {brief(score)}')
    if 'keep_ckpt_ids' in info:
        ids = info.pop('keep_ckpt_ids')
        kept = _written(ids, list(zip(hooks, folders, strict=True)))
        if kept:
            info['keep_ckpt_ids'] = kept
        if kept != ids:
            dropped.append(f'keep_ckpt_ids {brief(ids, 200)}')
    known = info.keys() | hub['log_scalars'].keys()
    # An entry that is False was never saved, and would clash with a hook that saves it now.
    resumed = {name: True for name, flag in hub['resumed_keys'].items() if flag and name in known}
    return {**hub, 'runtime_info': info, 'resumed_keys': resumed}, dropped


def _own_file(path: Any, folders: Sequence[str], lead: str, *, by_name: bool) -> str | None:
    """Return a checkpoint in ``folders``, ``by_name`` that of the same base name, else None."""
    paths = [path]
    if by_name and isinstance(path, str):
        paths += [os.path.join(folder, os.path.basename(path)) for folder in folders]
    for own in paths:
        if any(_is_checkpoint_in(folder, own, lead) for folder in folders):
            return own
    return None


def _written(ids: Any, hooks: Sequence[tuple[CheckpointHook, str]]) -> list[int]:
    """Return the numbers of checkpoints that a hook has written to its folder, each once."""
    if not isinstance(ids, list):
        return []
    numbers = dict.fromkeys(number for number in ids if is_count(number))
    return [number for number in numbers if any(_has_written(number, *pair) for pair in hooks)]


def _has_written(number: int, hook: CheckpointHook, folder: str) -> bool:
    return _is_checkpoint_in(folder, os.path.join(folder, hook.filename_tmpl.format(number)))


def _is_checkpoint_in(folder: str, path: Any, lead: str = '') -> bool:
    """Return whether ``path`` is a regular .pth file, no link to one, right in ``folder``."""
    if not isinstance(path, str) or not path.isprintable():
        return False
    parent, name = os.path.split(path)
    if not name.startswith(lead) or not name.endswith('.pth'):
        return False
    try:
        regular = stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False
    return regular and os.path.realpath(parent) == os.path.realpath(folder)
