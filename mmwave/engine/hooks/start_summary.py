"""A summary of a run, in a few lines, before its first step."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner, find_latest_checkpoint

from mmwave.engine import console
from mmwave.engine.data_checks.datasets import unwrap
from mmwave.engine.model_wrapper import unwrapped, unwrapped_settings
from mmwave.engine.optim_wrapper import optim_wrappers
from mmwave.engine.trained_with import counted
from mmwave.errors import printable_path

_NAMED_CLASSES = 3


class StartSummaryHook(Hook):
    """Log what is run, on what and how; after it the screen shows what mmengine logs.

    Model, device and log file are logged when the hook is made, the rest when the loop begins. It
    is made by hand and registered last, so that it comes after all that happens before the first
    step.

    Args:
        runner: whose model is built.
        mode: ``'train'`` or ``'test'``.
        note: what was changed for a machine without a GPU.
        remarks: further lines.
    """

    priority = 'LOWEST'

    def __init__(
        self, runner: Runner, mode: str, *, note: str = '', remarks: Sequence[str] = ()
    ) -> None:
        self._first_step = True
        lines = [
            ('model', _model(runner)),
            ('device', note or _gpus()),
            ('processes', _processes(runner, mode)),
            *(('remark', remark) for remark in remarks),
            ('log', printable_path(runner.logger.log_file or runner.work_dir)),
        ]
        path = runner.cfg.filename
        _tell(runner, f'{mode}ing {printable_path(path) if path else ""}'.rstrip(), lines)

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        lines = [('train data', _data(runner.train_dataloader))]
        if runner.val_loop is not None:
            lines.append(('val data', _data(runner.val_dataloader)))
        by_iteration = isinstance(loop, IterBasedTrainLoop)
        length = (
            counted(runner.max_iters, 'iteration')
            if by_iteration
            else f'{counted(runner.max_epochs, "epoch")} of '
            f'{counted(len(runner.train_dataloader), "iteration")}'
        )
        if runner.iter:
            length += f', goes on after {runner.iter if by_iteration else runner.epoch}'
        lines += [
            *_weights(runner),
            ('batch', _batch(runner)),
            *(('optimizer', text) for text in _optimizers(runner)),
            ('length', length),
        ]
        _tell(runner, 'before the first step', lines)
        self._end_start(last=False)

    def before_test(self, runner: Runner) -> None:
        _tell(
            runner,
            'before the first image',
            [('test data', _data(runner.test_dataloader)), *_weights(runner)],
        )
        self._end_start(last=True)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if self._first_step:  # whose warnings come in every process
            self._first_step = False
            self._end_start(last=True)

    @staticmethod
    def _end_start(*, last: bool) -> None:
        screen = console.current()
        if screen is not None:
            screen.end_start(done=True)
            screen.compare_warnings(last)


def _tell(runner: Runner, title: str, lines: Iterable[tuple[str, str]]) -> None:
    text = '\n'.join(f'  {name:<12}{value}' for name, value in lines)
    runner.logger.info(f'{title}\n{text}', extra=console.ON_SCREEN)


def _model(runner: Runner) -> str:
    model = unwrapped(runner.model)
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    total, trained = sum(n for n, _ in sizes), sum(n for n, needed in sizes if needed)
    text = type(model).__name__
    outer = unwrapped(runner.model, from_tta=False)
    if outer is not model:
        text = f'{type(outer).__name__} of {text}'
    if hasattr(model, 'backbone'):
        settings = unwrapped_settings(runner.cfg.get('model') or {}).get('backbone') or {}
        arch = settings.get('arch')
        text += f', backbone {type(model.backbone).__name__}'
        text += f' ({arch})' if isinstance(arch, str) else ''
    text += f', {total:,} parameters'
    return text if trained == total else f'{text}, {trained:,} of them trained'


def _gpus() -> str:
    if not torch.cuda.is_available():
        return 'CPU'
    return f'{get_world_size()} x {torch.cuda.get_device_name()}'


def _processes(runner: Runner, mode: str) -> str:
    text = f'{get_world_size()}, of {counted(torch.get_num_threads(), "thread")}'
    wrapper = runner.cfg.get('optim_wrapper') or {}
    if mode != 'train':
        return text
    kind = str(wrapper.get('type', ''))
    if kind.endswith(('AmpOptimWrapper', 'AutocastOptimWrapper')):
        dtype = str(wrapper.get('dtype') or 'float16').removeprefix('torch.')
        return f'{text}, autocast to {dtype} (AMP{_scaling(wrapper)})'
    dtypes = dict.fromkeys(str(p.dtype).removeprefix('torch.') for p in runner.model.parameters())
    return ', '.join([text, *list(dtypes)[:1]])


def _scaling(wrapper: Mapping[str, Any]) -> str:
    """Say how losses are scaled by the settings of an optimizer's wrapper."""
    if not str(wrapper.get('type')).endswith('AmpOptimWrapper'):
        return ''
    scale = wrapper.get('loss_scale', 'dynamic')
    if isinstance(scale, Mapping):
        return ', dynamic loss scale' if scale.get('enabled', True) else ', no loss scale'
    return ', dynamic loss scale' if scale == 'dynamic' else f', loss scale {scale:g}'


def _clipping(wrapper: Any) -> str:
    settings = wrapper.clip_grad_kwargs
    if not settings:
        return 'gradients not clipped'
    limits = ', '.join(f'{name}={value}' for name, value in settings.items())
    return f'gradients clipped ({limits})'


def _data(loader: Any) -> str:
    """Describe the data sets of a loader: types, size, classes."""
    parts = [place.dataset for place in unwrap(loader.dataset)]
    kinds = ' + '.join(dict.fromkeys(type(part).__name__ for part in parts))
    text = f'{kinds}, {counted(len(loader.dataset), "sample")}'
    metainfo = getattr(parts[0], 'metainfo', None)
    classes = metainfo.get('classes') if isinstance(metainfo, Mapping) else None
    if not classes:
        return text
    classes = list(classes)
    names = ', '.join(map(str, classes[:_NAMED_CLASSES]))
    rest = ', …' if len(classes) > _NAMED_CLASSES else ''
    return f'{text}, {counted(len(classes), "class")} ({names}{rest})'


def _weights(runner: Runner) -> Iterator[tuple[str, str]]:
    """Yield what was logged of weights that were loaded."""
    screen = console.current()
    loads = list(screen.loads) if screen is not None else []
    path = runner._load_from
    for text in loads:
        first, *more = text.splitlines()
        if first.endswith(' from the checkpoint'):
            # None: the last one, and this run has not saved any yet.
            where = path or find_latest_checkpoint(runner.work_dir)
            first = f'{first} {printable_path(where)}'
        yield 'weights', first
        yield from (('', line.strip()) for line in more)
    if not loads:
        yield 'weights', printable_path(path) if path else 'from scratch'


def _batch(runner: Runner) -> str:
    loader = runner.train_dataloader
    size = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None)
    if size is None:
        return 'set by its batch sampler'
    processes = get_world_size()
    counts = {
        getattr(wrapper, '_accumulative_counts', 1) for wrapper in optim_wrappers(runner).values()
    }
    steps = max(counts)
    text = f'{counted(size, "sample")} x {counted(processes, "process")}'
    if steps > 1:
        text += f' x {steps} accumulated'
    return f'{text} = {size * processes * steps}'


def _optimizers(runner: Runner) -> Iterator[str]:
    scaling = runner.auto_scale_lr or {}
    for wrapper in optim_wrappers(runner).values():
        # Warm-up has changed 'lr' by now.
        rates = sorted({g.get('initial_lr', g['lr']) for g in wrapper.optimizer.param_groups})
        text = f'{type(wrapper.optimizer).__name__}, learning rate {rates[-1]:.4g}'
        if len(rates) > 1:
            text += f' (down to {rates[0]:.4g} in some groups)'
        if scaling.get('enable') and not runner._resume:  # the checkpoint's rate was settled
            text += f', scaled from a batch of {scaling["base_batch_size"]}'
        yield f'{text}, {_clipping(wrapper)}'
