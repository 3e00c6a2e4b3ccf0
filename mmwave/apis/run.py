"""Train and test from a config, one way for every task, since the config states which it is."""

import copy
import logging
import os
import os.path as osp
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmwave.engine.console import console
from mmwave.engine.drawing import draw_in_every_process
from mmwave.engine.end_summary import tell_end
from mmwave.engine.optim_wrapper import has_bfloat16
from mmwave.engine.run_config import set_for_call
from mmwave.engine.signals import noted
from mmwave.engine.watching.hook import watched
from mmwave.engine.work_lock import check_unowned, owned

from .building import build_runner
from .config_names import find_config
from .consistency import switch_off_worker_options
from .imports import missing_module
from .libraries import check_libraries
from .options import merge, unused_settings
from .outputs import check_output_file, check_output_folder
from .preflight import preflight
from .shorthands import Shorthands, use_shorthands
from .tta import check_tta, refuse_tta, use_tta
from .usage import UsageError
from .weights import check_checkpoint, check_last_checkpoint, check_pretrained


def load_config(
    path: str,
    *,
    cfg_options: Mapping[str, Any] | None = None,
    work_dir: str | None = None,
    shorthands: Shorthands | None = None,
) -> Config:
    """Read a config and settle its work directory.

    Args:
        path: the config file, or the name of a shipped config.
        cfg_options: dotted keys and the values that replace the config's; see
            :func:`mmwave.apis.options.merge`.
        work_dir: where logs and checkpoints go; by default the config's ``work_dir``, else
            ``work_dirs/NAME``.
        shorthands: settings that are replaced too, by their short names.

    Raises:
        UsageError: where there is no such file, it is no config or imports what is not found, or an
            option does not fit it.
    """
    path = find_config(path)
    try:
        cfg = Config.fromfile(path)
    except ImportError as error:
        raise missing_module(path, error) from error
    for line in unused_settings(cfg):
        print_log(line, logger='current', level=logging.WARNING)
    if shorthands is not None:
        use_shorthands(cfg, shorthands, cfg_options or {})
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
    shorthands: Shorthands | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    num_procs: int | None = None,
    verbose: bool = False,
) -> Config:
    """Read a config and options for training and check all that can be checked without building.

    Args:
        config: the config file, or the name of a shipped config.
        work_dir: where logs and checkpoints go; see :func:`load_config`.
        resume: ``'auto'`` goes on from the last checkpoint in the work directory and starts anew
            where there is none; a path goes on from that checkpoint, None starts anew.
        load_from: weights of a whole model to start from; None: those that the config names.
        amp: train with automatic mixed precision: in bfloat16 where the GPUs have it, else in
            float16 with a loss scale. A config that does so already stays as it is.
        auto_scale_lr: scale the learning rate by the ratio of the batch to
            ``auto_scale_lr.base_batch_size``.
        shorthands: length, batch, learning rate and tracker.
        cfg_options: dotted keys and the values that replace the config's.
        num_procs: processes to be started on this machine, None where that is not known.
        verbose: show what the libraries print, which otherwise goes to the log file of the run.

    Raises:
        UsageError: where config, checkpoint or options do not fit.
        PreflightError: where data folders, annotation files, class names or GPUs do not fit.
    """
    with console(verbose, carry=True):
        cfg = load_config(config, cfg_options=cfg_options, work_dir=work_dir, shorthands=shorthands)
        if num_procs is not None:  # this process asks for those that will own the folder
            check_unowned(cfg.work_dir)
        check_libraries(cfg)
        refuse_tta(cfg)
        if amp:
            _use_amp(cfg)
        if auto_scale_lr:
            if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
                raise UsageError(f'{config} states no auto_scale_lr.base_batch_size to scale from')
            cfg.auto_scale_lr.enable = True
        _set_start(cfg, resume, load_from)
        check_checkpoint(cfg)
        # Every process of a run would read it all; there the first one does, and tells the others.
        check_last_checkpoint(cfg, contents=num_procs is not None)
        preflight(cfg, splits=('train',), num_procs=num_procs)
        # Last: whoever has not set up the data yet has no use for advice about weights.
        check_pretrained(cfg)
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
        config: the config file, or the name of a shipped config.
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
        check_checkpoint(cfg)
        if show_dir:
            check_output_folder('--show-dir', show_dir)
        if out:
            if not out.endswith(('.pkl', '.pickle')):
                raise UsageError(f'--out {out}: predictions are written to a .pkl file')
            check_output_file('--out', out)
            metrics = cfg.test_evaluator
            metrics = list(metrics) if isinstance(metrics, list | tuple) else [metrics]
            dump = dict(type='mmwave.DumpWhole', out_file_path=out)
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
        UserError: where weights do not fit the model, the checkpoint to resume from is damaged, of
            another config or of weights alone, or another training owns the work folder.
        Preempted: where SIGTERM or SIGUSR1 asked the run to leave; its state is saved.
    """
    with (
        console(verbose) as screen,
        owned(cfg.get('work_dir'), launcher),
        noted(alone=launcher == 'none'),
    ):
        runner = build_runner(cfg, launcher, trust_checkpoint, screen, mode='train')
        with watched(runner):
            runner.train()
        tell_end(runner, 'train')
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
        runner = build_runner(cfg, launcher, trust_checkpoint, screen, mode='test')
        draw_in_every_process(runner.visualizer)
        with watched(runner):
            metrics = runner.test()
        tell_end(runner, 'test', **_written(cfg))
    return metrics


def _written(cfg: Config) -> dict[str, str | None]:
    """Return what a test writes beside its log: see :func:`tell_end`."""
    metrics = cfg.get('test_evaluator')
    metrics = metrics if isinstance(metrics, list | tuple) else [metrics or {}]
    dumps = (metric.get('out_file_path') for metric in metrics)
    hook = (cfg.get('default_hooks') or {}).get('visualization') or {}
    folder = hook.get('test_out_dir') or hook.get('out_dir')
    if not folder and hook.get('draw'):
        folder = (cfg.get('visualizer') or {}).get('save_dir')
    return dict(out=next(filter(None, dumps), None), show=folder)


def _set_start(cfg: Config, resume: str | None, load_from: str | None) -> None:
    if load_from is not None:
        if resume is not None:
            raise UsageError('give --load-from to start anew from weights, or --resume to go on')
        cfg.resume, cfg.load_from = False, load_from
    if resume == 'auto':
        set_for_call(cfg, resume=True, load_from=None)
    elif resume is not None:
        set_for_call(cfg, resume=True, load_from=resume)


def _use_amp(cfg: Config) -> None:
    wrapper = cfg.optim_wrapper
    kind = wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UsageError(f'--amp works with optim_wrapper.type OptimWrapper, not {kind}')
    if kind == 'OptimWrapper' and 'loss_scale' not in wrapper and has_bfloat16():
        # Its exponents are float32's: nothing to scale. A type that was chosen stays.
        wrapper.setdefault('dtype', 'bfloat16')
        if wrapper.dtype == 'bfloat16':
            wrapper.loss_scale = dict(enabled=False)
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
