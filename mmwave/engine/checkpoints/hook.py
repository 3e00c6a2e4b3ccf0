"""mmengine's hook that saves checkpoints, without a moment at which there is no whole one."""

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook as MMEngineHook
from mmengine.runner import Runner

from mmwave.checkpoint import remove_leftovers
from mmwave.errors import UserError, printable, printable_path
from mmwave.registry import HOOKS

from .writing import NotWrittenError, register_whole_files, write_whole

MOST_FAILURES = 3
"""So many checkpoints in a row that cannot be written end a run."""

_LAST = 'checkpoint'  # what is resumed from; the best ones are told apart by their metric


class _Outcome(NamedTuple):
    """How the first process fared: what went wrong, if anything, and whether a run ends by it."""

    problem: str = ''
    fatal: bool = False


@HOOKS.register_module()
class CheckpointHook(MMEngineHook):
    """Save checkpoints as mmengine's hook of this name does, whole or not at all.

    Local files are written under another name and renamed when they have reached the disk, the
    note ``last_checkpoint`` too. What mmengine removes before it writes (checkpoints beyond
    ``max_keep_ckpts``, the former best one) is removed when the new one is whole and noted: for
    that moment the disk holds one more of each.

    A checkpoint that cannot be written is an error in the log; the former ones stay and training
    goes on. After :data:`MOST_FAILURES` in a row, or where the last one of the run is missing, the
    run ends in an error. The first process writes, and all learn whether it could: none is left
    waiting. Remote files are written as mmengine does, and removed after the new ones are written.

    Args:
        *args: of mmengine's hook, as are those by keyword.

    Raises:
        UserError: in every process, where the run has to end.
    """

    _failed: dict[str, list[str]]  # what could not be written since the last one of its kind was
    _outdated: list[str]  # paths that go when the next checkpoint is whole and noted
    _began_with: str | None  # the checkpoint that the run is resumed from

    def before_train(self, runner: Runner) -> None:
        register_whole_files()
        super().before_train(runner)
        self._failed, self._outdated = {}, []
        self._began_with = runner._load_from if runner._resume else None
        # mmengine's has a greatest length, at which it forgets a checkpoint that is still there.
        self.keep_ckpt_ids = deque(getattr(self, 'keep_ckpt_ids', ()))
        if is_main_process():
            for folder in {str(self.out_dir), runner.work_dir}:
                if '://' not in folder:
                    remove_leftovers(Path(folder))

    def after_train(self, runner: Runner) -> None:
        self._end_where_any_failed()
        if self._attempt(runner, 'published checkpoint', '', lambda: self._publish(runner)):
            return
        self._end_where_any_failed()

    def _publish(self, runner: Runner) -> None:
        super().after_train(runner)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        name = self.filename_tmpl.format(step)
        path = self.file_backend.join_path(self.out_dir, name)
        ids = [*(number for number in self.keep_ckpt_ids if number != step), step]
        most = self.max_keep_ckpts if self.max_keep_ckpts > 0 else len(ids)
        news = {'last_ckpt': path}
        if self.max_keep_ckpts > 0:
            news['keep_ckpt_ids'] = ids[-most:]
        with_before = _Entries(runner.message_hub, news)

        def write() -> None:
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )

        def note() -> None:
            # With its folder, as mmengine's own reader needs it; ours looks for the name alone.
            if is_main_process():
                write_whole(Path(runner.work_dir, 'last_checkpoint'), str(path).encode())

        for key, value in news.items():
            runner.message_hub.update_info(key, value)
        if not self._attempt(runner, _LAST, name, write):
            with_before.restore()
            return
        self.last_ckpt = path
        self.keep_ckpt_ids = deque(ids)
        if not self._attempt(runner, _LAST, name, note):
            return
        self._failed.pop(_LAST, None)
        self.keep_ckpt_ids = deque(ids[-most:])
        templates = map(self.filename_tmpl.format, ids[:-most])
        self._outdated += [self.file_backend.join_path(self.out_dir, old) for old in templates]
        self._remove_outdated(runner)

    def _save_best_checkpoint(self, runner: Runner, metrics: Mapping[str, Any]) -> None:
        if not self.save_best:
            return
        if 'auto' in self.key_indicators:  # as mmengine does, which then looks at it no more
            self._init_rule(self.rules, [next(iter(metrics))])
        last, self.last_ckpt = self.last_ckpt, None  # saved again below, once for all metrics
        try:
            better = [
                key for key in self.key_indicators if self._save_best_by(key, runner, metrics)
            ]
        finally:
            self.last_ckpt = last
        if not better:
            return
        if last is None:
            self._remove_outdated(runner)
            return
        # Once more, since it holds which checkpoint is the best.
        step = runner.epoch if self.by_epoch else runner.iter
        self._save_checkpoint_with_step(runner, step, dict(epoch=runner.epoch, iter=runner.iter))

    def _save_best_by(self, key: str, runner: Runner, metrics: Mapping[str, Any]) -> bool:
        """Save the best checkpoint by one metric; return whether there was one to save."""
        single = len(self.key_indicators) == 1
        entry = 'best_ckpt' if single else f'best_ckpt_{key}'
        with_before = _Entries(runner.message_hub, (entry, entry.replace('ckpt', 'score', 1)))
        former = self._best_path(key)
        self._set_best_path(key, None)  # so that it is not removed before there is a better one
        chosen = {**dict.fromkeys(self.key_indicators), key: metrics[key]}  # None is no candidate
        save = super()._save_best_checkpoint
        name = f'best {key} of {runner.epoch if self.by_epoch else runner.iter}'
        written = self._attempt(runner, key, name, lambda: save(runner, chosen))
        path = self._best_path(key)
        if not written or path is None:
            with_before.restore()
            self._set_best_path(key, former)
            return False
        self._failed.pop(key, None)
        if former is not None and former != path:
            self._outdated.append(former)
        return True

    def _best_path(self, key: str) -> str | None:
        if len(self.key_indicators) == 1:
            return self.best_ckpt_path
        return self.best_ckpt_path_dict.get(key)

    def _set_best_path(self, key: str, path: str | None) -> None:
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = path
        else:
            self.best_ckpt_path_dict[key] = path

    def _attempt(self, runner: Runner, kind: str, name: str, write: Callable[[], None]) -> bool:
        """Return in all processes whether the first one could write.

        Args:
            runner: that saves.
            kind: of what is written, the failures of which in a row are counted.
            name: of the file; one that fails twice is counted once.
            write: writes in the first process.

        Raises:
            UserError: where the run has to end.
        """
        outcome, caught = _Outcome(), None
        try:
            write()
        except NotWrittenError as error:
            outcome = _Outcome(str(error))
        except Exception as error:
            outcome, caught = (
                _Outcome(f'a checkpoint was not written: {printable(error)}', True),
                error,
            )
        shared = [outcome]
        broadcast_object_list(shared)
        (outcome,) = shared
        if caught is not None:
            raise caught
        if outcome.fatal:
            raise UserError(outcome.problem)
        if not outcome.problem:
            return True
        failed = self._failed.setdefault(kind, [])
        if name not in failed:
            failed.append(name)
        if len(failed) >= MOST_FAILURES:
            raise UserError(
                f'{outcome.problem}; it is the {_ordinal(len(failed))} {printable(kind)} in a row '
                f'that is not written: {self._what_is_left()}'
            )
        if is_main_process():
            runner.logger.error(
                f'{outcome.problem}: {self._what_is_left()}; training goes on and ends where this '
                f'happens {MOST_FAILURES} times in a row, or at the last one'
            )
        return False

    def _end_where_any_failed(self) -> None:
        if self._failed:
            missing = ', '.join(
                printable(name or kind) for kind, (*_, name) in self._failed.items()
            )
            raise UserError(
                f'the training is over, and what it was to leave could not be written ({missing}; '
                f'the log says why): {self._what_is_left()}'
            )

    def _what_is_left(self) -> str:
        last = self.last_ckpt or self._began_with
        if last is None:
            return 'there is no checkpoint of this run yet'
        return f'{printable_path(last)} is the last one'

    def _remove_outdated(self, runner: Runner) -> None:
        outdated, self._outdated = self._outdated, []
        if not is_main_process():
            return
        for path in outdated:
            try:
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)
                elif self.file_backend.isdir(path):  # those of DeepSpeed are folders
                    self.file_backend.rmtree(path)
            except OSError as error:
                runner.logger.warning(f'{printable_path(path)} cannot be removed: {error.strerror}')


class _Entries:
    """Entries of a message hub as they are now.

    Args:
        hub: mmengine's.
        names: of its information.
    """

    def __init__(self, hub: Any, names: Any) -> None:
        self.hub, self.names = hub, tuple(names)
        self.values = {name: hub.get_info(name) for name in names if name in hub.runtime_info}

    def restore(self) -> None:
        """Set them to what they were, and remove those that were not there."""
        for name in self.names:
            if name in self.values:
                self.hub.update_info(name, self.values[name])
            else:
                self.hub.runtime_info.pop(name, None)
                self.hub.resumed_keys.pop(name, None)


def use_our_hook(cfg: Config) -> None:
    """Have the hooks of mmengine's own type, and the one of a run that names none, be ours.

    Those of another type, a subclass for instance, stay.

    Args:
        cfg: changed in place, but for the hooks in it that somebody else may hold.
    """
    hooks = dict(cfg.get('default_hooks') or {})
    hooks.setdefault('checkpoint', dict(type='CheckpointHook'))
    cfg.default_hooks = {name: _ours(hook) for name, hook in hooks.items()}
    cfg.custom_hooks = [_ours(hook) for hook in cfg.get('custom_hooks') or []]


def _ours(hook: Any) -> Any:
    stock = (MMEngineHook, 'CheckpointHook', 'mmengine.CheckpointHook')
    if isinstance(hook, Mapping) and hook.get('type') in stock:
        return {**hook, 'type': f'mmwave.{CheckpointHook.__name__}'}
    return hook


def _ordinal(number: int) -> str:
    return {1: 'first', 2: 'second', 3: 'third'}.get(number, f'{number}th')
