"""Images that are too small for a backbone are padded in evaluation, counted and named."""

from collections.abc import Iterator
from typing import Any

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from mmwave.errors import printable
from mmwave.registry import HOOKS

_NAMED = 5


@HOOKS.register_module()
class SmallImagesHook(Hook):
    """Pad images below a backbone's least size in validation and testing.

    One such image among thousands would end an evaluation. It is padded at the bottom and on the
    right, after normalization and with the data preprocessor's own value, and what is predicted
    for the padding is cut off as it is for other padding. One warning at the end of the evaluation,
    the same in every process, counts these images and names the first five.

    It acts on models with a data preprocessor and a backbone of this package that states no other
    condition on sizes than the least one. In training an image that is too small stays an error.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._padded: set[str] = set()

    def before_val_epoch(self, runner: Runner) -> None:
        self._begin(runner.model)

    def before_test_epoch(self, runner: Runner) -> None:
        self._begin(runner.model)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._end(runner)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self._end(runner)

    def _begin(self, model: nn.Module) -> None:
        self._stop()
        self._padded = set()
        self._handles = pad_small_images(model, self._padded)

    def _stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _end(self, runner: Runner) -> None:
        self._stop()
        # A sampler gives some images to several processes, so that all have as many.
        names = sorted(set().union(*all_gather_object(self._padded)))
        if names:
            count = '1 image is' if len(names) == 1 else f'{len(names):,} images are'
            more = f' and {len(names) - _NAMED:,} more' if len(names) > _NAMED else ''
            runner.logger.warning(
                f'{count} too small for the backbone after the pipeline, and padded: '
                f'{", ".join(printable(name) for name in names[:_NAMED])}{more}'
            )


def pad_small_images(model: nn.Module, padded: set[str]) -> list[RemovableHandle]:
    """Have a model's data preprocessors pad images below the backbone's least size.

    Args:
        model: of the kind that :class:`SmallImagesHook` acts on; another one is left alone.
        padded: receives the names of the images that were padded.

    Returns:
        What ends the padding when it is removed.
    """
    return [
        preprocessor.register_forward_hook(_padding(least, padded))
        for preprocessor, least in _preprocessors(model)
    ]


def _padding(least: int, padded: set[str]) -> Any:
    def pad(preprocessor: nn.Module, inputs: Any, output: Any) -> Any:
        images = output.get('inputs') if isinstance(output, dict) else None
        if not isinstance(images, Tensor) or images.dim() != 4:
            return None
        height, width = images.shape[-2:]
        bottom, right = max(least - height, 0), max(least - width, 0)
        if not bottom and not right:
            return None
        value = getattr(preprocessor, 'pad_val', getattr(preprocessor, 'pad_value', 0))
        samples = output.get('data_samples') or []
        for sample in samples:
            _note(sample, bottom, right, (height + bottom, width + right))
        padded.update(_name(sample) for sample in samples)
        larger = functional.pad(images, (0, right, 0, bottom), value=float(value))
        return {**output, 'inputs': larger}

    return pad


def _preprocessors(model: nn.Module) -> Iterator[tuple[nn.Module, int]]:
    """Yield the data preprocessors of models with a backbone of ours, and its least size."""
    for module in model.modules():
        constraint = getattr(getattr(module, 'backbone', None), 'size_constraint', None)
        preprocessor = getattr(module, 'data_preprocessor', None)
        if constraint is None or not isinstance(preprocessor, nn.Module):
            continue
        if constraint.only is None and constraint.divisors == (1, 1):
            yield preprocessor, constraint.min_size


def _note(sample: Any, bottom: int, right: int, shape: tuple[int, int]) -> None:
    """Write padding into a sample where its library looks for it."""
    if 'batch_input_shape' in sample:  # mmdet
        sample.set_metainfo(dict(batch_input_shape=shape))
    elif hasattr(sample, 'metainfo'):  # mmseg cuts this off; mmpretrain has no use for it
        key = 'img_padding_size' if 'img_padding_size' in sample else 'padding_size'
        before = sample.get(key) or (0, 0, 0, 0)
        left, old_right, top, old_bottom = before
        padding = (left, old_right + right, top, old_bottom + bottom)
        # What heads resize to: mmseg's sliding window replaces the second with the window's.
        size = 'pad_shape' if 'pad_shape' in sample else 'img_shape'
        sample.set_metainfo({key: padding, size: shape})


def _name(sample: Any) -> str:
    path = getattr(sample, 'img_path', None)
    return str(path) if path is not None else f'number {getattr(sample, "sample_idx", "unknown")}'
