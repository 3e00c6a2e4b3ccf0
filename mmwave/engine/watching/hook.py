"""What a run does, for the watch of its processes; and how it waits."""

import contextlib
import logging
import re
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmwave.errors import UserError
from mmwave.registry import HOOKS

from .beats import group_beats
from .ending import UnavailableError, end_process, to_log_file
from .loader_errors import loader_error
from .notes import Notes, take_notes
from .shared_memory import judge, need_of
from .slow_loader import LoadingShare
from .timeouts import Patience, saving_patiently, timeout_of
from .watch import Watch

_LATE = re.compile(r'[Tt]imed out waiting|[Cc]onnection closed by peer')  # gloo's
_FIRST_STEPS = 1
_FIRST_STEPS_COMPILED = 20  # shapes that come up later are compiled too


@HOOKS.register_module()
class WatchHook(Hook):
    """End a run that waits in vain, with a line that says what for; see :class:`.watch.Watch`.

    Before the first step shared memory is compared with what the data loaders may take. When
    waiting for data has taken more than a share of the time of 100 steps the first process warns,
    once.

    Only inside of :func:`watched` processes are watched: the hook alone compares and warns.

    Args:
        slow_share: of loading in the time of the steps, above which the loader is called slow.

    Raises:
        UserError: where ``slow_share`` is not above 0 and at most 1.
    """

    # After the timer and before checkpoints are written.
    priority = 'LOW'

    def __init__(self, slow_share: float = 0.3) -> None:
        if isinstance(slow_share, bool) or not 0 < slow_share <= 1:
            raise UserError(f'slow_share must be above 0 and at most 1, got {slow_share!r}')
        self.slow_share = slow_share
        self._loading: LoadingShare | None = LoadingShare()
        self._loaders: dict[str, tuple[DataLoader, Notes]] = {}
        self._watch: Watch | None = None
        self._patience: Patience | None = None

    def before_train(self, runner: Runner) -> None:
        self._take_notes('train', runner.train_dataloader)
        if runner.val_loop is not None:
            self._take_notes('val', runner.val_dataloader)
        self._check_shared_memory(runner)

    def before_train_epoch(self, runner: Runner) -> None:
        # What came before, in the first process: a checkpoint of the last epoch, files that are
        # read for the first time.
        self._extend()
        self._progress('the start of an epoch')
        self._use('train')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._progress(f'training step {runner.iter + 1}')

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        self._progress(f'what follows training step {runner.iter + 1}, or its next batch')
        if self._patience is not None:
            self._patience.step_done()
        if self._loading is not None:
            self._look_at_loading(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        self._begin_evaluation('validation', 'val', runner.val_dataloader)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._progress('what follows a validation')
        self._use('train')

    def before_test_epoch(self, runner: Runner) -> None:
        self._begin_evaluation('test', 'test', runner.test_dataloader)
        self._check_shared_memory(runner)

    def after_val_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        self._progress(f'validation, after batch {batch_idx + 1}')

    def after_test_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        self._progress(f'test, after batch {batch_idx + 1}')

    @contextlib.contextmanager
    def watching(self, runner: Runner) -> Iterator[None]:
        """Watch this process and the others; see :func:`watched`."""
        seconds = timeout_of(runner.cfg)
        watch = Watch(
            seconds, group_beats(), runner.logger, lambda line: end_process(line, runner.logger)
        )
        compiled = bool(runner.cfg.get('compile')) or _is_compiled(runner.model)
        patience = Patience(seconds, _FIRST_STEPS_COMPILED if compiled else _FIRST_STEPS)
        self._watch, self._patience = watch, patience
        done = False
        with saving_patiently(runner, patience):
            patience.extend()
            watch.start()
            try:
                yield
                if get_world_size() > 1:
                    # Whoever has nothing left to do still lives.
                    watch.progress('the end of the run')
                    patience.extend()
                    torch.distributed.barrier()
                done = True
            except RuntimeError as error:
                missing = watch.missing() if _LATE.search(str(error)) else None
                if missing is None:
                    raise
                raise UnavailableError(missing) from error
            finally:
                patience.end()
                watch.stop(done=done)
                self._watch = self._patience = None

    def explain(self, error: Exception) -> UserError | None:
        """Return the line that a user is to see for an error of a data loader."""
        return loader_error(error, self._loaders)

    def _begin_evaluation(self, what: str, split: str, loader: DataLoader) -> None:
        if split not in self._loaders:
            self._take_notes(split, loader)
        self._extend()
        self._progress(what)
        self._use(split)

    def _take_notes(self, split: str, loader: Any) -> None:
        if isinstance(loader, DataLoader):
            self._loaders[split] = (loader, take_notes(loader))

    def _use(self, split: str) -> None:
        """Note which loader is read from."""
        if self._watch is not None:
            loader, notes = self._loaders.get(split, (None, None))
            reads_itself = loader is not None and loader.num_workers == 0
            self._watch.notes = notes if reads_itself else None

    def _progress(self, doing: str) -> None:
        if self._watch is not None:
            self._watch.progress(doing)

    def _extend(self) -> None:
        if self._patience is not None:
            self._patience.extend()

    def _check_shared_memory(self, runner: Runner) -> None:
        loaders = [loader for loader, _ in self._loaders.values()]
        if not any(loader.num_workers for loader in loaders):
            return
        need = need_of(loaders)
        needs = all_gather_object(need) if get_world_size() > 1 else [need]
        for line in judge(needs):  # the same in all processes
            if get_rank() == 0:
                runner.logger.warning(line)

    def _look_at_loading(self, runner: Runner) -> None:
        assert self._loading is not None
        scalars = runner.message_hub.log_scalars
        if 'train/data_time' not in scalars or 'train/time' not in scalars:
            return
        share = self._loading.add(
            scalars['train/data_time'].current(), scalars['train/time'].current()
        )
        if share is None:
            return
        if self._watch is not None:
            self._watch.loading_share = share
        if get_rank() != 0:
            return
        # Other processes say it with their next signs of life.
        shares = {'this process': share}
        if self._watch is not None and self._watch.beats is not None:
            peers = self._watch.beats.peers()
            shares |= {str(peer): peer.state.get('share') or 0.0 for peer in peers}
        slowest = max(shares, key=lambda who: shares[who])
        if shares[slowest] <= self.slow_share:
            return
        self._loading = None  # once is enough
        where = f' in {slowest}' if slowest != 'this process' else ''
        runner.logger.warning(
            f'{shares[slowest]:.0%} of the time of the last 100 steps went by waiting for data'
            f'{where}: {_advice(runner.train_dataloader)}'
        )


@contextlib.contextmanager
def watched(runner: Runner) -> Iterator[None]:
    """Run the loops of ``runner`` under the watch of its :class:`WatchHook`.

    Inside, another thread ends the process, with :data:`..exit_codes.UNAVAILABLE`, where it would
    wait for ever.

    Raises:
        UserError: for a data loader that hangs or dies, and for processes that are missing, where
            torch raises an error.
    """
    hook = next((hook for hook in runner.hooks if isinstance(hook, WatchHook)), None)
    if hook is None:
        yield
        return
    try:
        with hook.watching(runner):
            yield
    except UnavailableError as error:
        to_log_file(str(error), logging.ERROR, runner.logger)
        raise
    except (RuntimeError, OSError, EOFError) as error:
        # Out here: where a worker has left, torch raises an error of its own at any time, while
        # the first one is treated too.
        line = hook.explain(error)
        if line is None:
            raise
        to_log_file(str(line), logging.ERROR, runner.logger)
        raise line from error


def _is_compiled(model: torch.nn.Module) -> bool:
    return any(module._compiled_call_impl is not None for module in model.modules())


def _advice(loader: DataLoader) -> str:
    faster = 'faster disks or smaller image files, or transforms that do less'
    if loader.num_workers == 0:
        return f'set train_dataloader.num_workers (0 loads between the steps); or {faster}'
    return f'raise train_dataloader.num_workers={loader.num_workers}; or {faster}'
