"""An epoch that never ends, or ends with a batch that batch norms refuse, is found at its start."""

from typing import Any

from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import all_gather_object, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import BatchSampler

from mmwave.engine.exact_resume.positions import NumberedBatches
from mmwave.engine.model_wrapper import unwrapped
from mmwave.errors import UserError
from mmwave.registry import HOOKS

_SHOWN = 3


@HOOKS.register_module()
class EpochEndHook(Hook):
    """Stop a training whose epochs cannot come to their end.

    An epoch over an endless sampler has none. A last batch of one image is too few for a batch norm
    on a map of one pixel, which torch refuses: where there is such a batch in any process, the
    first step shows whether there are such maps, and a training with both ends after it.

    Raises:
        UserError: (in the loop, in every process) naming the setting to change.
    """

    def __init__(self) -> None:
        self._norms: list[str] = []
        self._handles: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        loader = runner.train_dataloader
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        if by_epoch and _is_endless(getattr(loader, 'sampler', None)):
            raise UserError(
                f'train_dataloader.sampler is of type {type(loader.sampler).__name__}, over which '
                'an epoch never ends: set train_dataloader.sampler.type=DefaultSampler, or count '
                'iterations (train_cfg.type=IterBasedTrainLoop with train_cfg.max_iters)'
            )
        batches = _batches(loader)
        least = _last_batch(batches, by_epoch=by_epoch)
        if get_world_size() > 1:
            least = min(all_gather_object(least))
        if least == 1:
            self._watch(unwrapped(runner.model), images=getattr(batches, 'batch_size', 1))

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if not self._handles:
            return
        for handle in self._handles:
            handle.remove()
        self._handles = []
        found = self._norms
        if get_world_size() > 1:
            found = [name for names in all_gather_object(found) for name in names]
        if found:
            names = list(dict.fromkeys(found))
            more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
            raise UserError(
                'the last batch of an epoch has one image in a process, and batch norms '
                f'({", ".join(names[:_SHOWN])}{more}) get a map of one pixel of it, which torch '
                'refuses in training: set train_dataloader.drop_last=True, or another '
                'train_dataloader.batch_size'
            )

    def _watch(self, model: nn.Module, images: int) -> None:
        """Note in the first step, of so many images, which norms get one value of each."""
        for name, module in _norms(model):

            def look(module: nn.Module, inputs: tuple[Any, ...], name: str = name) -> None:
                x = inputs[0] if inputs else None
                if module.training and isinstance(x, Tensor) and x.dim() > 1:
                    if x.numel() == x.shape[1]:
                        raise UserError(
                            f'the batch norm {name} gets one value a channel '
                            f'({" x ".join(map(str, x.shape))}), which torch refuses in training: '
                            'set train_dataloader.batch_size=2 or more'
                        )
                    # One value for each of several regions of an image, say, leaves enough.
                    if x.numel() == x.shape[0] * x.shape[1] and x.shape[0] <= images:
                        self._norms.append(name)

            self._handles.append(module.register_forward_pre_hook(look))


def _is_endless(sampler: Any) -> bool:
    return getattr(type(sampler), '__iter__', None) is InfiniteSampler.__iter__


def _batches(loader: Any) -> Any:
    """Return a loader's batch sampler, the one that :class:`NumberedBatches` asks where it is."""
    batches = getattr(loader, 'batch_sampler', None)
    return batches.batches if isinstance(batches, NumberedBatches) else batches


def _last_batch(batches: Any, *, by_epoch: bool) -> int:
    """Return the size of this process's smallest batch, 0 where it is not known."""
    if type(batches) is not BatchSampler:
        return 0
    # Where iterations are counted, a sampler may have a length and no end.
    if not by_epoch and not isinstance(batches.sampler, DefaultSampler):
        return 0
    if batches.batch_size == 1:
        return 1
    try:
        left = 0 if batches.drop_last else len(batches.sampler) % batches.batch_size
    except TypeError:  # of a stream
        return 0
    return left or batches.batch_size


def _norms(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the batch norms, but for those that share statistics, or are compiled."""
    compiled = [n for n, m in model.named_modules() if getattr(m, '_compiled_call_impl', None)]
    return [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm)
        and not (isinstance(module, nn.SyncBatchNorm) and get_world_size() > 1)
        and not any(name == n or name.startswith(f'{n}.') for n in compiled)
    ]
