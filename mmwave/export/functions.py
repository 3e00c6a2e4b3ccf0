"""Models as functions of normalised images alone, with named outputs."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from mmwave.apis import UsageError

_HEAD_OUTPUTS = ('cls_score', 'bbox_pred', 'centerness')


@dataclass(frozen=True)
class Described:
    """What a file computes.

    Attributes:
        task: ``'classification'``, ``'detection'`` or ``'segmentation'``.
        outputs: name -> what it holds, in the order of the outputs.
    """

    task: str
    outputs: dict[str, str]


class Function(nn.Module):
    """A model as a function of images (N, 3, H, W) that returns a flat tuple of tensors.

    Args:
        model: a classifier, detector or segmentor, in eval mode.
    """

    task = ''

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def describe(self, x: Tensor) -> Described:
        """Return the outputs' names, given images to try."""
        raise NotImplementedError


class Classifier(Function):
    """Images -> logits (N, classes)."""

    task = 'classification'

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (_only(self.model(x, mode='tensor')),)

    def describe(self, x: Tensor) -> Described:
        return Described(self.task, {'logits': '(N, classes), in front of the softmax'})


class Segmentor(Function):
    """Images -> logits (N, classes, H, W)."""

    task = 'segmentation'

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (self.model.encode_decode(x, [dict(img_shape=x.shape[2:])]),)

    def describe(self, x: Tensor) -> Described:
        text = "(N, classes, H, W) at the image's size, in front of the softmax or sigmoid"
        return Described(self.task, {'logits': text})


class DenseHeads(Function):
    """Images -> the maps of a one-stage detector's head, level by level."""

    task = 'detection'

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        kinds = self.model.bbox_head(self.model.extract_feat(x))
        return tuple(level for kind in kinds for level in kind)

    def describe(self, x: Tensor) -> Described:
        kinds = self.model.bbox_head(self.model.extract_feat(x))
        outputs = {}
        for index, levels in enumerate(kinds):
            name = _HEAD_OUTPUTS[index] if index < len(_HEAD_OUTPUTS) else f'output{index}'
            for level, (map_, stride) in enumerate(zip(levels, self._strides(), strict=False)):
                outputs[f'{name}_{level}'] = (
                    f'(N, {map_.shape[1]}, H / {stride}, W / {stride}), raw'
                )
        return Described(self.task, outputs)

    def _strides(self) -> Sequence[int]:
        return [max(pair) for pair in self.model.bbox_head.prior_generator.strides]


class Levels(Function):
    """Images -> the maps of a backbone."""

    task = 'features'

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(x))

    def describe(self, x: Tensor) -> Described:
        levels = enumerate(self.model.stage_info)
        return Described(
            self.task,
            {f'level_{i}': f'(N, {s.channels}, H / {s.stride}, W / {s.stride})' for i, s in levels},
        )


def function_of(model: nn.Module) -> Function:
    """Return a model as a function.

    Args:
        model: in eval mode.

    Raises:
        UsageError: for a model of another kind than those that can be exported.
    """
    if hasattr(model, 'encode_decode'):
        return Segmentor(model)
    if hasattr(model, 'roi_head'):
        raise UsageError(
            f'a {type(model).__name__} has two stages, the second of which depends on what the '
            'first finds: exported are classifiers, segmentors and one-stage detectors'
        )
    if hasattr(getattr(model, 'bbox_head', None), 'prior_generator'):
        return DenseHeads(model)
    if hasattr(model, 'head') and hasattr(model, 'backbone'):
        return Classifier(model)
    if hasattr(model, 'stage_info'):
        return Levels(model)
    raise UsageError(
        f'a {type(model).__name__} cannot be exported: classifiers, segmentors and one-stage '
        'detectors can'
    )


def _only(outputs: Tensor | Sequence[Tensor]) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs[-1]
