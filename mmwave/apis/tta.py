"""Test-time augmentation: several views of every image are predicted, and the results merged.

A config has it as ``model`` (``DetTTAModel``, ``SegTTAModel``, ``AverageClsScoreTTA`` around the
model) or beside it as ``tta_model`` and ``tta_pipeline``, which ``--tta`` puts in their places.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.model import BaseTTAModel
from mmengine.runner import Runner
from torch import nn

from mmwave.engine.data_checks.datasets import Place, bare_type, unwrap
from mmwave.engine.hooks import FirstViewHook
from mmwave.engine.model_wrapper import unwrapped, unwrapped_settings

from .usage import UsageError

_MODELS: dict[str | None, dict[str, Any]] = {
    'mmdet': dict(
        type='DetTTAModel',
        tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
    ),
    'mmpretrain': dict(type='AverageClsScoreTTA'),
    'mmseg': dict(type='SegTTAModel'),
}
"""``default_scope`` of a config -> what its ``tta_model`` is by default."""
_RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of sides, those of mmseg's own configs
_PACKING = ('PackDetInputs', 'PackInputs', 'PackSegInputs')
# The flip goes before these: labels stay as they are, and mmdet flips a box back in the whole image
# only where the padding came after.
_BEHIND_FLIPS = ('LoadAnnotations', 'Pad')


def use_tta(cfg: Config) -> None:
    """Put the config's ``tta_model`` and ``tta_pipeline`` in place, or defaults.

    By default an image is seen plain and flipped, and in mmseg at six sizes as well; the rest of
    the test pipeline stays.

    Args:
        cfg: changed in place.

    Raises:
        UsageError: where the config has no ``tta_model`` and its library has none.
    """
    scope = cfg.get('default_scope')
    if not _is_tta(cfg.get('model')):
        around = cfg.get('tta_model') or _MODELS.get(scope)
        if around is None:
            raise UsageError(
                f'--tta: default_scope is {scope!r}, expected one of {", ".join(map(str, _MODELS))}'
                ', or a tta_model in the config'
            )
        cfg.model = ConfigDict({**copy.deepcopy(around), 'module': cfg.model})
    for key, dataset, _ in _places(cfg):
        pipeline = dataset.get('pipeline')
        if cfg.get('tta_pipeline'):
            dataset['pipeline'] = copy.deepcopy(cfg.tta_pipeline)
        elif not pipeline:
            raise UsageError(f'--tta: {key} has no pipeline to make views from')
        elif not any(bare_type(step) == 'TestTimeAug' for step in pipeline):
            dataset['pipeline'] = _views(pipeline, several_sizes=scope == 'mmseg')


def check_tta(cfg: Config) -> None:
    """Check a model with test-time augmentation, if ``cfg`` has one, before a test.

    Raises:
        UsageError: where it cannot merge what the model inside predicts, or gets single views.
    """
    if not _is_tta(cfg.get('model')):
        return
    inner = unwrapped_settings(cfg.model)
    if 'data_preprocessor' in inner and 'data_preprocessor' in cfg:
        # mmengine would have the config's replace the model's own, which a plain test uses.
        cfg.model.setdefault('data_preprocessor', None)
    kind = bare_type(cfg.model)
    masks = [
        name
        for name, part in (('roi_head.', inner.get('roi_head')), ('', inner))
        if isinstance(part, Mapping) and part.get('mask_head') is not None
    ]
    if masks and kind == 'DetTTAModel':
        where = f'{masks[0]}mask_head'
        boxes = f'--cfg-options model.{where}=None test_evaluator.metric=bbox'
        raise UsageError(
            f'DetTTAModel merges boxes only, and {where} of the {bare_type(inner)} predicts masks: '
            f'test without --tta{f", or the boxes alone with {boxes}" if masks[0] else ""}'
        )
    for key, dataset, _ in _places(cfg):
        pipeline = dataset.get('pipeline')
        if pipeline and bare_type(pipeline[-1]) in _PACKING:
            raise UsageError(
                f'{key}.pipeline gives one view of an image, and {kind} expects several: give '
                '--tta, or a pipeline with TestTimeAug'
            )


def refuse_tta(cfg: Config) -> None:
    """Raise :class:`UsageError` where ``cfg`` has a model that merges views, for a training."""
    if _is_tta(cfg.get('model')):
        raise UsageError(
            f'a {bare_type(cfg.model)} is for tests and cannot be trained: train its module as '
            'model, and test with --tta'
        )


def settle_views(runner: Runner) -> None:
    """Let hooks of a run see one view of an image, and labels follow from merged scores."""
    model = unwrapped(runner.model, from_tta=False)
    if isinstance(model, BaseTTAModel):
        # By hand: the configs that runs leave in their work directories are run again.
        runner.register_hook(FirstViewHook())
        label_merged_scores(model)


def label_merged_scores(model: nn.Module) -> None:
    """Let labels follow from merged scores: mmpretrain leaves that of the first view.

    Args:
        model: changed in place where it is mmpretrain's that merges views.
    """
    # A head for several labels an image chooses them by its own rule.
    if type(model).__name__ != 'AverageClsScoreTTA' or hasattr(model.module.head, 'thr'):
        return
    merge = model.merge_preds

    def merge_and_label(views: Any) -> Any:
        merged = merge(views)
        for sample in merged:
            sample.set_pred_label(sample.pred_score.argmax(dim=0, keepdim=True))
        return merged

    model.merge_preds = merge_and_label


def _is_tta(model: Any) -> bool:
    return isinstance(model, Mapping) and unwrapped_settings(model) is not model


def _places(cfg: Config) -> Iterator[Place]:
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    if dataset is not None:  # preflight says that it is missing
        yield from unwrap(dataset, 'test_dataloader.dataset')


def _views(pipeline: Sequence[Any], *, several_sizes: bool) -> list[Any]:
    """Return a pipeline that gives views of every image: plain and flipped, of several sizes."""
    steps = [copy.deepcopy(step) for step in pipeline]
    last = steps[-1]
    if isinstance(last, Mapping) and 'meta_keys' in last:
        # A prediction is flipped back by them.
        last['meta_keys'] = tuple(
            dict.fromkeys((*last['meta_keys'], 'flip', 'flip_direction'))  # in their order, once
        )
    kinds = [bare_type(step) for step in steps]
    flip = next((i for i, kind in enumerate(kinds) if kind in _BEHIND_FLIPS), len(steps) - 1)
    choices: list[list[Any]] = [[step] for step in steps]
    choices.insert(flip, [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)])
    if several_sizes:
        if 'Resize' in kinds[:flip]:
            at = kinds.index('Resize')
            choices[at] = [_resized(steps[at], ratio) for ratio in _RATIOS]
        else:
            plain = dict(type='Resize', scale_factor=1.0, keep_ratio=True)
            choices.insert(flip, [_resized(plain, ratio) for ratio in _RATIOS])
    start = next(i for i, several in enumerate(choices) if len(several) > 1)
    return [*steps[:start], dict(type='TestTimeAug', transforms=choices[start:])]


def _resized(step: Mapping[str, Any], ratio: float) -> dict[str, Any]:
    """Return the settings of a ``Resize`` to ``ratio`` times the sides."""
    step = dict(step)
    if step.get('scale_factor') is not None:
        factor = step['scale_factor']
        several = isinstance(factor, Sequence)
        step['scale_factor'] = tuple(f * ratio for f in factor) if several else factor * ratio
    else:
        scale = step['scale']
        sides = scale if isinstance(scale, Sequence) else (scale, scale)
        step['scale'] = tuple(round(side * ratio) for side in sides)
    return step
