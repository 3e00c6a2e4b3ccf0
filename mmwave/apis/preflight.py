"""Mistakes in a config that can be seen before anything heavy is built.

``preflight`` reads only the config, the file system and the annotation files' headers, and builds
the backbone without memory, so that a wrong folder, class name or setting ends the run in seconds
and in one line. What needs the built data sets (missing single images, bad label maps) is the work
of ``DataCheckHook``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .arguments import check_arguments
from .class_checks import check_classes, check_coco
from .consistency import check_numbers
from .data_files import (
    check_ann_file,
    check_evaluators,
    check_folders,
    check_not_empty,
    check_roots,
)
from .places import places_of
from .usage import PreflightError, UsageError

# torch and mmengine are imported inside functions: mmwave.apis imports this module at once.
if TYPE_CHECKING:
    from mmengine.config import Config

LOADERS = {'train': ('train', 'val'), 'val': ('val',), 'test': ('test',)}


def preflight(
    cfg: Config, *, splits: Sequence[str] = ('train',), num_procs: int | None = None
) -> None:
    """Check a config against the machine and the files before anything is built.

    Args:
        cfg: a config of mmpretrain, mmdet or mmseg form.
        splits: what the run will do: ``'train'`` checks the train and the validation data,
            ``'val'`` and ``'test'`` their own.
        num_procs: processes to start on this machine; None when somebody else starts them.

    Raises:
        PreflightError: where a folder, an annotation file, class names, the settings of a backbone
            of ours or options of ``compile`` do not fit, or there are more processes than GPUs.
        UsageError: where a split has another name.
        UserError: where ``data_check`` has no such settings.
    """
    unknown = sorted(set(splits) - set(LOADERS))
    if unknown:
        raise UsageError(f'splits: unknown {unknown}, accepted are {list(LOADERS)}')
    if num_procs is not None:
        _check_num_procs(num_procs)
    if cfg.get('model', {}) is None:
        raise PreflightError('model is None, expected the settings of one')
    _check_data_check(cfg)
    stages = _check_backbone(cfg)
    _check_compile(cfg)
    check_numbers(cfg, splits=splits, num_procs=num_procs, stages=stages)
    loaders = list(dict.fromkeys(name for split in splits for name in LOADERS[split]))
    places = [place for name in loaders for place in places_of(cfg, name, needed=name in splits)]
    check_roots(places)
    for place in places:
        check_folders(place)
        check_ann_file(place)
    for name in loaders:
        check_evaluators(cfg, name, places)
    # Last, because the defaults for what the config leaves out are the library's, whose import
    # takes seconds.
    for place in places:
        check_not_empty(place)
        check_classes(place)
        check_coco(place, cfg)
    check_arguments(cfg, loaders)


def _check_num_procs(num_procs: int) -> None:
    if num_procs < 1:
        raise PreflightError(f'{num_procs} processes asked for: at least 1 is needed')
    import torch

    num_gpus = torch.cuda.device_count()
    if 0 < num_gpus < num_procs:
        raise PreflightError(
            f'{num_procs} processes asked for, but this machine shows {num_gpus} GPU(s): each '
            f'process needs its own; start at most {num_gpus}, or hide the GPUs with '
            'CUDA_VISIBLE_DEVICES= to run on the CPU'
        )


def _check_data_check(cfg: Config) -> None:
    from mmwave.engine.data_checks.settings import data_check_hooks

    data_check_hooks(cfg.get('data_check', True))


def _check_backbone(cfg: Config) -> Sequence[Any] | None:
    """Build a backbone of ours where it costs nothing: wrong settings name the accepted ones.

    Returns:
        Its ``stage_info``, None for a backbone of another library.
    """
    from mmwave.engine.model_wrapper import unwrapped_settings

    settings = unwrapped_settings(cfg.get('model', {})).get('backbone')
    if not isinstance(settings, Mapping) or not str(settings.get('type')).startswith('mmwave.'):
        return None
    import torch

    from mmwave.registry import MODELS

    try:
        with torch.device('meta'):
            return MODELS.build({k: v for k, v in settings.items() if k != 'init_cfg'}).stage_info
    except (KeyError, TypeError, ValueError) as error:
        raise PreflightError(f'model.backbone: {error.args[0]}') from error


def _check_compile(cfg: Config) -> None:
    """Have torch check the options of ``compile``, which it does before it compiles anything."""
    settings = cfg.get('compile')
    if settings is None or isinstance(settings, bool):
        return
    if not isinstance(settings, Mapping):
        raise PreflightError(
            f'compile={settings!r} must be True, False or a dict of options of torch.compile'
        )
    import torch

    try:
        torch.compile(torch.nn.Identity(), **settings)
    except (AssertionError, AttributeError, RuntimeError, TypeError) as error:
        reason = textwrap.shorten(str(error), 300, placeholder=' ...')
        raise PreflightError(f'compile: {reason}') from error
