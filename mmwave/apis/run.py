"""Train and test from a config, one way for every task, since the config states which it is."""

import copy
import logging
import os
import os.path as osp
from collections.abc import Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmwave.checkpoint import register_safe_loader
from mmwave.engine.best_checkpoint import choose_by_main_metric
from mmwave.engine.console import Console, console
from mmwave.engine.cpu import adapt_to_cpu
from mmwave.engine.data_checks.settings import data_check_hooks
from mmwave.engine.drawing import draw_in_every_process
from mmwave.engine.hooks.start_summary import StartSummaryHook
from mmwave.engine.model_wrapper import unwrapped
from mmwave.engine.run_config import RunConfig, set_for_call
from mmwave.engine.work_folder import last_checkpoint, output_folder
from mmwave.errors import UserError, printable_path
from mmwave.mmcv_ops import check_environment, check_ops
from mmwave.mmcv_ops.environment import DISTRIBUTIONS

from .consistency import switch_off_worker_options
from .imports import missing_module
from .options import merge, unused_settings
from .preflight import preflight
from .tta import check_tta, refuse_tta, settle_views, use_tta
from .usage import INSTALL, LAUNCHERS, UsageError, check_config_path

_MIN_FRACTION = {'train': 0.5, 'test': 1.0}  # of a model's tensors that a checkpoint must hold


def load_config(
    path: str, *, cfg_options: Mapping[str, Any] | None = None, work_dir: str | None = None
) -> Config:
    """Read a config and settle its work directory.

    Args:
        path: the config file.
        cfg_options: dotted keys and the values that replace the config's; see
            :func:`mmwave.apis.options.merge`.
        work_dir: where logs and checkpoints go; by default the config's ``work_dir``, else
            ``work_dirs/NAME``.

    Raises:
        UsageError: where there is no such file, it is no config or imports what is not found, or an
            option does not fit it.
    """
    check_config_path(path)
    try:
        cfg = Config.fromfile(path)
    except ImportError as error:
        raise missing_module(path, error) from error
    for line in unused_settings(cfg):
        print_log(line, logger='current', level=logging.WARNING)
    if cfg_options:
        merge(cfg, cfg_options)
    switch_off_worker_options(cfg)
    cfg.work_dir = (
        work_dir
        or cfg.get('work_dir')
        or osp.join('work_dirs', osp.splitext(osp.basename(path))[0])
    )
    return cfg


def prepare_training(
    config: str,
    *,
    work_dir: str | None = None,
    resume: str | None = None,
    load_from: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    cfg_options: Mapping[str, Any] | None = None,
    num_procs: int | None = None,
    verbose: bool = False,
) -> Config:
    """Read a config and options for training and check all that can be checked without building.

    Args:
        config: the config file.
        work_dir: where logs and checkpoints go; see :func:`load_config`.
        resume: ``'auto'`` goes on from the last checkpoint in the work directory and starts anew
            where there is none; a path goes on from that checkpoint, None starts anew.
        load_from: weights of a whole model to start from; None: those that the config names.
        amp: train with automatic mixed precision.
        auto_scale_lr: scale the learning rate by the ratio of the batch to
            ``auto_scale_lr.base_batch_size``.
        cfg_options: dotted keys and the values that replace the config's.
        num_procs: processes to be started on this machine, None where that is not known.
        verbose: show what the libraries print, which otherwise goes to the log file of the run.

    Raises:
        UsageError: where config, checkpoint or options do not fit.
        PreflightError: where data folders, annotation files, class names or GPUs do not fit.
    """
    with console(verbose, carry=True):
        cfg = load_config(config, cfg_options=cfg_options, work_dir=work_dir)
        check_libraries(cfg)
        refuse_tta(cfg)
        if amp:
            _use_amp(cfg)
        if auto_scale_lr:
            if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
                raise UsageError(f'{config} states no auto_scale_lr.base_batch_size to scale from')
            cfg.auto_scale_lr.enable = True
        if load_from is not None:
            if resume is not None:
                raise UsageError(
                    'give --load-from to start anew from weights, or --resume to go on'
                )
            cfg.resume, cfg.load_from = False, load_from
        if resume == 'auto':
            set_for_call(cfg, resume=True, load_from=None)
        elif resume is not None:
            set_for_call(cfg, resume=True, load_from=resume)
        _check_checkpoint(cfg)
        _check_last_checkpoint(cfg)
        preflight(cfg, splits=('train',), num_procs=num_procs)
        # Last: whoever has not set up the data yet has no use for advice about weights.
        _check_pretrained(cfg)
        return cfg


def prepare_testing(
    config: str,
    checkpoint: str,
    *,
    work_dir: str | None = None,
    out: str | None = None,
    show_dir: str | None = None,
    tta: bool = False,
    cfg_options: Mapping[str, Any] | None = None,
    num_procs: int | None = None,
    verbose: bool = False,
) -> Config:
    """Read a config and options for testing and check all that can be checked without building.

    Args:
        config: the config file.
        checkpoint: the weights.
        work_dir: where logs go; see :func:`load_config`.
        out: ``.pkl`` file to write the predictions to.
        show_dir: folder to draw predictions into.
        tta: predict several views of every image and merge the results, see :mod:`.tta`.
        cfg_options: dotted keys and the values that replace the config's.
        num_procs: processes to be started on this machine, None where that is not known.
        verbose: show what the libraries print, which otherwise goes to the log file of the run.

    Raises:
        UsageError: where config, checkpoint or options do not fit.
        PreflightError: where data folders, annotation files, class names or GPUs do not fit.
    """
    with console(verbose, carry=True):
        cfg = load_config(config, cfg_options=cfg_options, work_dir=work_dir)
        check_libraries(cfg)
        if tta:
            set_for_call(cfg, model=cfg.model, test_dataloader=cfg.get('test_dataloader'))
            use_tta(cfg)
        check_tta(cfg)
        set_for_call(cfg, load_from=checkpoint, resume=False)
        _check_checkpoint(cfg)
        if out:
            if not out.endswith(('.pkl', '.pickle')):
                raise UsageError(f'--out {out}: predictions are written to a .pkl file')
            metrics = cfg.test_evaluator
            metrics = list(metrics) if isinstance(metrics, list | tuple) else [metrics]
            dump = dict(type='DumpResults', out_file_path=out)
            set_for_call(cfg, test_evaluator=[*metrics, dump])
        if show_dir:
            _draw_into(cfg, osp.abspath(show_dir))
        preflight(cfg, splits=('test',), num_procs=num_procs)
        return cfg


def train(
    cfg: Config, *, launcher: str = 'none', trust_checkpoint: bool = False, verbose: bool = False
) -> Runner:
    """Train as a prepared config says.

    Before the first step the screen shows a summary and warnings; the log file receives all.

    Args:
        cfg: of :func:`prepare_training`.
        launcher: one of :data:`LAUNCHERS`; ``'none'`` is a single process.
        trust_checkpoint: allow checkpoints that run code when they are read.
        verbose: show all that the log file receives.

    Returns:
        The runner after training.

    Raises:
        DataError: where the data do not fit, before the first step.
        UserError: where weights do not fit the model, or the checkpoint to resume from is damaged,
            of another config or of weights alone.
    """
    with console(verbose) as screen:
        runner = _build_runner(cfg, launcher, trust_checkpoint, screen, mode='train')
        runner.train()
    return runner


def test(
    cfg: Config, *, launcher: str = 'none', trust_checkpoint: bool = False, verbose: bool = False
) -> dict[str, float]:
    """Evaluate as a prepared config says; every tensor of the model must be in the checkpoint.

    Args:
        cfg: of :func:`prepare_testing`.
        launcher: one of :data:`LAUNCHERS`; ``'none'`` is a single process.
        trust_checkpoint: allow a checkpoint that runs code when it is read.
        verbose: show all that the log file receives.

    Returns:
        The metrics by name.

    Raises:
        DataError: where the data do not fit.
        UserError: where the weights do not fit the model.
    """
    with console(verbose) as screen:
        runner = _build_runner(cfg, launcher, trust_checkpoint, screen, mode='test')
        draw_in_every_process(runner.visualizer)
        return runner.test()


def _build_runner(cfg: Config, launcher: str, trust: bool, screen: Console, *, mode: str) -> Runner:
    if launcher not in LAUNCHERS:
        raise UsageError(f'unknown launcher {launcher!r}: expected one of {", ".join(LAUNCHERS)}')
    check_libraries(cfg)
    if cfg.get('default_scope') == 'mmdet':
        check_ops(get_device())
    register_safe_loader(trust=trust)
    cfg = _for_this_run(cfg, mode)
    cfg.launcher = launcher
    note = adapt_to_cpu(cfg, launcher) if get_device() == 'cpu' else ''
    runner = Runner.from_cfg(cfg)
    screen.attach(runner.logger)
    settle_views(runner)
    _find_last_checkpoint(runner)
    choose_by_main_metric(runner)
    remarks = _compile_backbone(runner)
    runner.register_hook(StartSummaryHook(runner, mode, note=note, remarks=remarks))
    return runner


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
    always = [dict(type='mmwave.PictureNamesHook'), dict(type='mmwave.SmallImagesHook')]
    return RunConfig(
        cfg,
        hooks=[*checks, reports[mode], *always],
        stale=[dict(type='mmwave.DataCheckHook'), *checks, *reports.values()],
        keep=keep,
    )


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


def check_libraries(cfg: Config) -> None:
    """Raise one line on a library that is missing, or half installed, before it is imported."""
    library = cfg.get('default_scope')
    if library not in ('mmdet', 'mmpretrain', 'mmseg'):
        check_environment()
        return
    if _is_missing(library):
        raise UsageError(f"this config needs {library}: pip install '{INSTALL[library]}'")
    check_environment(library)


def _is_missing(library: str) -> bool:
    """Return whether nothing of it is here, neither its files nor an entry of its installation."""
    try:
        if find_spec(library) is not None:
            return False
        metadata.version(DISTRIBUTIONS[library][0])
    except ValueError:  # how find_spec reports that an import is blocked
        return True
    except metadata.PackageNotFoundError:
        return True
    return False


def _check_checkpoint(cfg: Config) -> None:
    path = cfg.get('load_from')
    if path is None:
        return
    if not isinstance(path, str) or not path.strip():
        raise UsageError(
            f'the path of the checkpoint is {path!r}: is the shell variable that holds it unset?'
        )
    if '://' not in path and not osp.isfile(osp.expanduser(path)):
        raise UsageError(f'no such checkpoint: {printable_path(path)}')


def _check_last_checkpoint(cfg: Config) -> None:
    """Check mmengine's note of the last checkpoint, which may be damaged, or outlive it."""
    if not cfg.get('resume') or cfg.get('load_from') is not None:
        return
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or [])]
    out_dirs = [
        hook.get('out_dir')
        for hook in hooks
        if isinstance(hook, Mapping) and str(hook.get('type')).endswith('CheckpointHook')
    ]
    try:
        last_checkpoint(cfg.work_dir, [output_folder(path, cfg.work_dir) for path in out_dirs])
    except UserError as error:
        raise UsageError(str(error)) from error


def _find_last_checkpoint(runner: Runner) -> None:
    """Have a run resume from its own last checkpoint; mmengine would from whatever is noted."""
    if runner._resume and runner._load_from is None:
        hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        folders = [output_folder(hook.out_dir, runner.work_dir) for hook in hooks]
        runner._load_from = last_checkpoint(runner.work_dir, folders)


def _check_pretrained(cfg: Config) -> None:
    for key, path in _pretrained(cfg.model, 'model'):
        if '://' not in path and not osp.isfile(path):
            raise UsageError(
                f'no pretrained weights at {path} ({key}): convert the published file to that path '
                'with tools/convert_checkpoint.py, set MMWAVE_CHECKPOINTS to the folder that has '
                'it, or train from scratch with --cfg-options model.backbone.init_cfg=None'
            )


def _pretrained(node: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield where a model's config names files of weights: (dotted key, path)."""
    if isinstance(node, Mapping):
        if node.get('type') == 'Pretrained' and isinstance(node.get('checkpoint'), str):
            yield f'{key}.checkpoint', node['checkpoint']
        for name, value in node.items():
            yield from _pretrained(value, f'{key}.{name}')
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            yield from _pretrained(value, f'{key}.{index}')


def _use_amp(cfg: Config) -> None:
    wrapper = cfg.optim_wrapper
    kind = wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UsageError(f'--amp works with optim_wrapper.type OptimWrapper, not {kind}')
    wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('loss_scale', 'dynamic')


def _draw_into(cfg: Config, folder: str) -> None:
    """Switch the task's own visualization hook on; each library names the folder differently."""
    hooks = copy.deepcopy(cfg.default_hooks)
    hook = hooks.get('visualization')
    if hook is None:
        raise UsageError('--show-dir needs default_hooks.visualization in the config')
    os.makedirs(folder, exist_ok=True)
    set_for_call(cfg, default_hooks=hooks)
    if hook.type.endswith('DetVisualizationHook'):
        hook.update(draw=True, test_out_dir=folder)
    elif hook.type.endswith('SegVisualizationHook'):
        hook.update(draw=True, interval=1)
        set_for_call(cfg, visualizer=dict(cfg.visualizer, save_dir=folder))
    else:
        hook.update(enable=True, interval=1, out_dir=folder)
