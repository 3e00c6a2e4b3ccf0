"""By which metric the best checkpoint of a run is chosen."""

import os
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmwave.engine.training_state import is_number
from mmwave.errors import UserError, printable, printable_path


def choose_by_main_metric(runner: Runner) -> None:
    """Have ``save_best='auto'`` mean the main metric of the task.

    mmengine takes the first metric of the first evaluation: the precision of the first class with
    ``CocoMetric(classwise=True)``, the pixel accuracy with mmseg's ``IoUMetric``. Here it is the
    main metric of the first evaluator that has one (:func:`main_metrics`), else the first that is
    a number. An evaluation without the metric, such as one without any detection, is no candidate
    for the best, and does not end the run.

    Args:
        runner: not yet trained.
    """
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best:
            _choose(hook)


def main_metrics(metric: Any) -> tuple[str, ...]:
    """Return the names of an evaluator's main metric, best first and without prefix.

    Larger is better in all of them. A name stands for those too that it begins, before a ``_``.

    Args:
        metric: a built metric, empty for one that is not known.
    """
    kinds = {(kind.__module__.split('.')[0], kind.__name__) for kind in type(metric).__mro__}
    for kind, names in _MAIN.items():
        if kind in kinds:
            return tuple(names(metric) if callable(names) else names)
    return ()


def _boxes_or_masks(metric: Any) -> list[str]:
    kinds = [kind for kind in ('bbox', 'segm') if kind in metric.metrics]
    # Metrics may be restricted to others than the mean over all thresholds.
    return [name for kind in kinds for name in (f'{kind}_mAP', f'{kind}_AP', kind)]


def _top(metric: Any) -> list[str]:
    return [f'top{k}' for k in sorted(metric.topk)]


_PER_CLASS = ('precision', 'recall', 'f1-score')
# (library, type) -> main metrics, or what returns them of a built metric. Types before their bases.
_MAIN: dict[tuple[str, str], Any] = {
    ('mmdet', 'CocoMetric'): _boxes_or_masks,  # LVISMetric is one
    ('mmdet', 'CocoPanopticMetric'): ('PQ',),
    ('mmdet', 'VOCMetric'): ('mAP',),
    ('mmdet', 'OpenImagesMetric'): ('mAP',),
    ('mmdet', 'CityScapesMetric'): ('mAP',),
    ('mmdet', 'CrowdHumanMetric'): ('mAP', 'JI'),
    ('mmdet', 'SemSegMetric'): ('mIoU', 'mDice', 'mFscore'),
    ('mmseg', 'IoUMetric'): ('mIoU', 'mDice', 'mFscore'),
    ('mmseg', 'CityscapesMetric'): ('averageScoreCategories',),
    ('mmpretrain', 'Accuracy'): _top,
    ('mmpretrain', 'AveragePrecision'): ('mAP',),
    ('mmpretrain', 'MultiLabelMetric'): _PER_CLASS,
    ('mmpretrain', 'SingleLabelMetric'): _PER_CLASS,
}


def _choose(hook: CheckpointHook) -> None:
    """Hand a hook the metrics of an evaluation so that it takes those that it should."""
    save = hook._save_best_checkpoint

    def save_best(runner: Runner, metrics: Mapping[str, Any]) -> None:
        if 'auto' in hook.key_indicators and not _settle(hook, runner, metrics):
            return
        for key in hook.key_indicators:
            if key in metrics:
                continue
            if any(_prefix(name) == _prefix(key) for name in metrics):
                raise UserError(
                    f'default_hooks.checkpoint.save_best names {key!r}, which is none of the '
                    f'metrics of this run: {printable(", ".join(metrics))}'
                )
            _tell_missing(runner, key, metrics)
        _forget_others(hook, runner)
        numbers = {name: value for name, value in metrics.items() if is_number(value)}
        save(runner, {**dict.fromkeys(hook.key_indicators), **numbers})

    hook._save_best_checkpoint = save_best


def _settle(hook: CheckpointHook, runner: Runner, metrics: Mapping[str, Any]) -> bool:
    """Settle what 'auto' stands for; return False where this evaluation lacks it."""
    scalars = [name for name, value in metrics.items() if _is_scalar(value)]
    rules = hook.rules
    for metric in runner.val_loop.evaluator.metrics:
        stems = main_metrics(metric)
        lead = f'{metric.prefix}/' if metric.prefix else ''
        found = _first_of(scalars, [lead + stem for stem in stems])
        if found is not None:
            hook._init_rule(['greater'] if rules == [None] else rules, [found])
            return True
        if stems and lead and not any(name.startswith(lead) for name in metrics):
            _tell_missing(runner, f'the main metric, of {lead.rstrip("/")}', metrics)
            return False
    if not scalars:
        _tell_missing(runner, 'a single number', metrics)
        return False
    try:
        hook._init_rule(rules, scalars[:1])
    except ValueError as error:
        raise UserError(
            f"default_hooks.checkpoint.save_best='auto' is {printable(scalars[0])!r} here: set "
            "default_hooks.checkpoint.rule to 'greater' or 'less', whichever is better"
        ) from error
    return True


def _first_of(names: Sequence[str], stems: Sequence[str]) -> str | None:
    """Return the first name that is a stem, or begins so before a ``_``, by the stems' order."""
    for stem in stems:
        if stem in names:
            return stem
        for name in names:
            if name.startswith(f'{stem}_'):
                return name
    return None


def _is_scalar(value: Any) -> bool:
    return is_number(value) or (isinstance(value, Real) and value != value)  # or NaN


def _prefix(name: str) -> str:
    return name.rpartition('/')[0]


def _tell_missing(runner: Runner, what: str, metrics: Mapping[str, Any]) -> None:
    runner.logger.warning(
        f'this evaluation gave {printable(", ".join(metrics))} and lacks {what}: its checkpoint is '
        'no candidate for the best'
    )


def _forget_others(hook: CheckpointHook, runner: Runner) -> None:
    """Drop a best score of another metric, which the run that is resumed has chosen by."""
    path = getattr(hook, 'best_ckpt_path', None)
    if path is None:
        return
    (key,) = hook.key_indicators
    start = f'best_{key}_{hook.filename_tmpl.split("{")[0]}'.replace('/', '_')
    if not os.path.basename(path).startswith(start):
        runner.logger.warning(
            f'the best checkpoint so far, {printable_path(path)}, was chosen by another metric '
            f'than {printable(key)}: it is left alone, and the best is chosen anew'
        )
        hook.best_ckpt_path = None
        runner.message_hub.runtime_info.pop('best_score', None)
