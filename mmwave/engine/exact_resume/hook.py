"""The hook by which a resumed training is the uninterrupted one."""

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from mmwave.engine.model_wrapper import unwrapped
from mmwave.errors import UserError, printable_path
from mmwave.registry import HOOKS

from .inside_epoch import (
    EpochStarts,
    batches_of_stock,
    begin_inside,
    check_batches,
    end_inside,
    resumes_inside_epoch,
)
from .module_values import ModuleValues, Values, is_values
from .own_generators import holders
from .positions import NumberedBatches, leave_batches, number_batches, why_not_numbered
from .samplers import begin_turn, seeds_of, set_seeds, unrepeatable
from .seeding import Origin, Purpose, seed_generators

ENTRY = 'exact_resume'
"""Of a checkpoint: batches of its epoch that are done, of how many; the samplers' seeds; values."""


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Have a training that is resumed equal the uninterrupted one bit for bit.

    The global generators of Python, NumPy and PyTorch are seeded in front of every sample, every
    step and every validation from the seed of the run, the rank and the position, generators that
    samplers and transforms have for themselves as well. So it makes no difference where a run was
    resumed, nor how many workers load the data and whether they persist. A checkpoint that was
    written inside an epoch is resumed at that batch, and nothing is loaded to get there. Without
    ``randomness.seed`` in the config the seed that mmengine draws is in the checkpoint.

    Where something is known to differ, a warning on resuming names it. Not covered, beside what no
    seed determines (kernels of a GPU, see ``randomness.deterministic``; with more than two
    processes the order in which gradients are summed up in the first step):

    - gradients that were accumulated when the checkpoint was written, see :func:`at_boundary`;
    - what hooks keep for themselves: ``EarlyStoppingHook`` counts anew. mmdet's
      ``YOLOXModeSwitchHook`` and ``PipelineSwitchHook`` and mmpretrain's ``SwitchRecipeHook`` go by
      the epoch and do again what they did before;
    - samples that transforms keep, as mmdet's ``CachedMosaic`` and ``CachedMixUp`` do;
    - tensors in a model that are no buffers, queues of other samples for example;
    - data sets that are iterated over, and data loaders that are not PyTorch's;
    - epochs of loops of a kind of their own, which begin anew;
    - a run with another number of processes or images per batch.

    Args:
        enabled: False leaves data loader, generators and checkpoints as mmengine has them.
        same_on_ranks: have every process draw the same numbers in a step, as models need that skip
            layers at random; samples differ all the same.
    """

    # In front of the hooks that prepare a step.
    priority = 'VERY_HIGH'

    def __init__(self, enabled: bool = True, same_on_ranks: bool = False) -> None:
        self.enabled = enabled
        self.same_on_ranks = same_on_ranks
        self._training = False
        self._loaded: Mapping[str, Any] | None = None
        self._first_seed: int | None = None

    def before_run(self, runner: Runner) -> None:
        """Note the seed that samplers were built with."""
        self._first_seed = runner.seed

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Read what a checkpoint says beside mmengine's counters.

        Raises:
            UserError: on resuming, where it is damaged.
        """
        meta = checkpoint.get('meta') or {}
        self._loaded = None
        if not self.enabled or 'iter' not in meta or 'epoch' not in meta:
            return
        entry = checkpoint.get(ENTRY)
        try:
            if entry is not None:
                _check_entry(entry)
        except UserError as error:
            if not runner._resume:  # weights are all that is wanted
                return
            source = printable_path(runner._load_from) if runner._load_from else 'the checkpoint'
            raise UserError(f'{source} cannot be resumed from: {error}') from error
        parts = ('meta', 'message_hub', ENTRY)
        self._loaded = {name: checkpoint[name] for name in parts if name in checkpoint}

    def before_train(self, runner: Runner) -> None:
        """Number the batches and go to where the checkpoint was."""
        loop = runner.train_loop
        loader = getattr(loop, 'dataloader', None)
        if not self.enabled:
            leave_batches(loader)
            return
        self._training = True
        resumed = self._loaded if runner.iter > 0 else None
        self._loaded = None
        entry = (resumed or {}).get(ENTRY) or {}
        self._take_seeds(runner, loader, entry.get('seeds'))
        rank = get_rank()
        differ = runner._randomness_cfg.get('diff_rank_seed', False)
        self._origin = Origin(runner.seed - (rank if differ else 0), rank)
        self._step_origin = self._origin._replace(rank=0) if self.same_on_ranks else self._origin
        self._device = next((p.device for p in runner.model.parameters()), torch.device('cpu'))
        inexact = self._reasons(loop, loader)
        self._batches = number_batches(loader, self._origin)
        self._values = ModuleValues(unwrapped(runner.model))
        self._restored: Values = entry.get('values', {})
        self._starts = EpochStarts()
        self._first = 0
        if isinstance(loop, IterBasedTrainLoop):
            if self._batches is not None:
                skip = SkipIterations(loop, self._batches)
                vars(loop.dataloader_iterator)['skip_iter'] = skip
        elif resumed:
            self._first = self._batches_done(runner, resumed, inexact)
        _tell(runner, inexact, resumed=bool(resumed))

    def before_train_epoch(self, runner: Runner) -> None:
        """Begin an epoch, the first one at the batch where the checkpoint was."""
        if not self._training:
            return
        first, self._first = self._first, 0
        self._values.restore(self._restored)
        self._restored = {}
        self._starts.begin(runner.epoch, runner.iter - first)
        if self._batches is None:
            return
        # By iteration the epoch is a counter that nothing moves.
        by_iter = isinstance(runner.train_loop, IterBasedTrainLoop)
        self._batches.begin_epoch(0 if by_iter else runner.epoch, first)
        if first:
            begin_inside(runner.train_loop, first)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed the generators for a step."""
        if self._training:
            seed_generators(self._step_origin, Purpose.STEP, runner.iter, device=self._device)

    def before_val_epoch(self, runner: Runner) -> None:
        """Seed the generators for a validation during training."""
        if self._training:
            seed_generators(self._origin, Purpose.VALIDATION, runner.iter, device=self._device)

    def after_train_epoch(self, runner: Runner) -> None:
        """Note where the next epoch begins: checkpoints are written before it does."""
        if self._training:
            end_inside(runner.train_loop)
            self._starts.begin(runner.epoch + 1, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Leave the generators alone from here on."""
        self._training = False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add what mmengine does not write."""
        if not self._training:
            return
        loop = runner.train_loop
        entry: dict[str, Any] = {
            'seeds': seeds_of(getattr(loop, 'dataloader', None)),
            'values': self._values.changed(),
        }
        if isinstance(loop, EpochBasedTrainLoop):
            entry['batches'] = self._starts.batches_done(checkpoint['meta'])
            entry['length'] = len(loop.dataloader)
        checkpoint[ENTRY] = entry

    def _take_seeds(self, runner: Runner, loader: Any, seeds: list[int] | None) -> None:
        """Have samplers go on with their seeds: they are built before a checkpoint is read."""
        if seeds is None and self._first_seed is not None:
            old, new = self._first_seed, runner.seed
            seeds = [new if seed == old else seed for seed in seeds_of(loader)]
        if seeds:
            set_seeds(loader, seeds)

    def _reasons(self, loop: Any, loader: Any) -> list[str]:
        """Return why a resumed run would differ, as far as that is known."""
        reasons = [reason] if (reason := why_not_numbered(loader)) else []
        if not reasons:
            by_epoch = not isinstance(loop, IterBasedTrainLoop)
            names = unrepeatable(loader, by_epoch=by_epoch)
            reasons += [f'the sampler {n} chooses other samples each time it begins' for n in names]
            caches = holders(loader.dataset, 'results_cache')
            reasons += [f'the transform {name} keeps samples it has seen' for name in caches]
        return reasons

    def _batches_done(self, runner: Runner, resumed: Mapping[str, Any], inexact: list[str]) -> int:
        """Return the number of the batch at which the epoch goes on; add to what is inexact."""
        loop = runner.train_loop
        if not isinstance(loop, EpochBasedTrainLoop):
            return 0
        length = len(loop.dataloader)
        entry = resumed.get(ENTRY) or {}
        if 'batches' in entry:
            done, of = entry['batches'], entry['length']
        else:
            done, of = batches_of_stock(resumed, length), length
        if not done:
            return 0
        if self._batches is None or not resumes_inside_epoch(runner):
            inexact.append(
                f'the checkpoint is at batch {done} of {of} in epoch {runner.epoch + 1}, which '
                f'begins anew: a {type(loop).__name__} with such data cannot go on inside an epoch'
            )
            return 0
        if of != length:
            inexact.append(
                f'the checkpoint is at batch {done} of {of} in epoch {runner.epoch + 1}, which '
                f'has {length} batches now'
            )
            done = done * length // of
        runner.logger.info(f'Epoch {runner.epoch + 1} goes on after batch {done} of {length}')
        return done


class SkipIterations:
    """Stands in for ``skip_iter`` of a loop's iterator: no sample is loaded on the way.

    Args:
        loop: of iterations.
        batches: of its data loader.
    """

    def __init__(self, loop: IterBasedTrainLoop, batches: NumberedBatches) -> None:
        self._loop = loop
        self._batches = batches

    def __call__(self, num_iters: int) -> None:
        self._batches.skip_batches(num_iters, self._begin_anew)

    def _begin_anew(self) -> None:
        iterator = self._loop.dataloader_iterator
        iterator._epoch += 1
        begin_turn(self._loop.dataloader, iterator._epoch)


def _check_entry(entry: Any) -> None:
    if not isinstance(entry, dict):
        raise UserError(f'its {ENTRY} is of type {type(entry).__name__}, expected a dict')
    if 'batches' in entry:
        check_batches(entry['batches'], entry.get('length'))
    seeds = entry.get('seeds')
    # NumPy's and PyTorch's generators take these.
    if not isinstance(seeds, list) or not all(type(s) is int and 0 <= s < 2**63 for s in seeds):
        raise UserError(f'its {ENTRY}.seeds are no list of whole numbers from 0')
    if not is_values(entry.get('values')):
        raise UserError(f'its {ENTRY}.values are no plain values by the names of modules')


def _tell(runner: Runner, inexact: list[str], *, resumed: bool) -> None:
    if not inexact:
        return
    text = '; '.join(inexact)
    if resumed:
        runner.logger.warning(f'This run will not equal the uninterrupted one: {text}')
    else:
        runner.logger.info(f'If this run is resumed, it will not equal itself: {text}')
