"""A runner built from a prepared config, with what every run of these tools has beside it."""

import os.path as osp

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from torch import nn

from mmwave.checkpoint import register_safe_loader
from mmwave.engine.agreement import load_together
from mmwave.engine.checkpoints import find_for_run, register_whole_files, use_our_hook
from mmwave.engine.checkpoints.best import choose_by_main_metric
from mmwave.engine.console import Console
from mmwave.engine.cpu import adapt_to_cpu
from mmwave.engine.data_checks.settings import data_check_hooks
from mmwave.engine.hooks.start_summary import StartSummaryHook
from mmwave.engine.log_files import outlive_log_files
from mmwave.engine.model_wrapper import unwrapped, unwrapped_settings
from mmwave.engine.optim_wrapper import agree_on_precision
from mmwave.engine.run_config import RunConfig
from mmwave.engine.watching.timeouts import settle_timeouts
from mmwave.mmcv_ops import check_ops

from .libraries import check_libraries
from .tta import settle_views
from .usage import LAUNCHERS, UsageError

_MIN_FRACTION = {'train': 0.5, 'test': 1.0}  # of a model's tensors that a checkpoint must hold

# Hooks of every run, and of every training.
_ALWAYS = ('AgreementHook', 'FiniteWeightsHook', 'PictureNamesHook', 'SmallImagesHook', 'WatchHook')
_IN_TRAINING = (
    *('EpochEndHook', 'ExactResumeHook', 'FiniteLossHook', 'IgnoredLabelsHook', 'LossScaleHook'),
    *('PlainCheckpointHook', 'PreemptionHook', 'ProvenanceHook'),
)


def build_runner(cfg: Config, launcher: str, trust: bool, screen: Console, *, mode: str) -> Runner:
    if launcher not in LAUNCHERS:
        raise UsageError(f'unknown launcher {launcher!r}: expected one of {", ".join(LAUNCHERS)}')
    check_libraries(cfg)
    if cfg.get('default_scope') == 'mmdet':
        check_ops(get_device())
    register_safe_loader(trust=trust)
    register_whole_files()
    cfg = _for_this_run(cfg, mode)
    settle_timeouts(cfg)
    cfg.launcher = launcher
    note = adapt_to_cpu(cfg, launcher) if get_device() == 'cpu' else ''
    runner = Runner.from_cfg(cfg)
    outlive_log_files(runner)
    screen.attach(runner.logger)
    agree_on_precision(runner)
    settle_views(runner)
    if mode == 'train':
        find_for_run(runner)
    load_together(runner)
    choose_by_main_metric(runner)
    remarks = _compile_backbone(runner)
    runner.register_hook(StartSummaryHook(runner, mode, note=note, remarks=remarks))
    return runner


def build_model(cfg: Config) -> nn.Module:
    """Return the model of a config, of any task, with the initial weights of its classes."""
    settings = cfg.model
    # As a runner does: mmpretrain's configs have it beside the model.
    if cfg.get('data_preprocessor') and not unwrapped_settings(settings).get('data_preprocessor'):
        unwrapped_settings(settings).data_preprocessor = cfg.data_preprocessor
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmwave'):
        return unwrapped(MODELS.build(settings))


def _for_this_run(cfg: Config, mode: str) -> RunConfig:
    """Return a copy with the hooks of every run, which is written down without them."""
    data_checks = data_check_hooks(cfg.get('data_check', True))
    checks = [*data_checks, dict(type='mmwave.ResumeCheckHook')]
    reports = {
        name: dict(type='mmwave.LoadReportHook', min_fraction=fraction)
        for name, fraction in _MIN_FRACTION.items()
    }
    # A test leaves the config of the training whose folder it writes its log to.
    keep = osp.join(cfg.work_dir, osp.basename(cfg.filename or '')) if mode == 'test' else None
    hooks = _ALWAYS + (_IN_TRAINING if mode == 'train' else ())
    always = [dict(type=f'mmwave.{name}') for name in hooks]
    run = RunConfig(
        cfg,
        hooks=[*checks, reports[mode], *always],
        stale=[dict(type='mmwave.DataCheckHook'), *checks, *reports.values()],
        keep=keep,
    )
    use_our_hook(run)
    return run


def _compile_backbone(runner: Runner) -> list[str]:
    """Carry out ``compile`` of the config on the backbone, in place: names of weights stay.

    mmengine would compile all of a step. torch cannot trace its optimizers, and preprocessors and
    heads break the graph at every image's annotations; a backbone is one graph.

    Returns:
        Remarks for the user.
    """
    settings = runner.cfg.pop('compile', None)  # the copy in the work directory keeps it
    if settings is None or settings is False:
        return []
    model = unwrapped(runner.model)
    if not hasattr(model, 'backbone'):
        raise UsageError(f'compile: a {type(model).__name__} has no backbone to compile')
    model.backbone.compile(**({} if settings is True else settings))
    return ['torch.compile is lazy: the first step, which compiles the backbone, may take minutes']
